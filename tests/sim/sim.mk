# sim.mk: the scheduler's simulator at full size; tests/unit/test_sched.c runs it small.
SIM_SRC := vmm/core/runq.c vmm/core/balance.c vmm/core/tree.c tests/sim/sim.c tests/sim/bench.c

.PHONY: bench-sched
build/sim/bench: $(SIM_SRC) vmm/core/runq.h tests/sim/sim.h tests/sim/sim.mk
	@mkdir -p $(@D)
	gcc -std=gnu11 -O2 -g -Wall -Wextra -Werror -Ivmm -DHOST_TEST -DMAX_CPUS=4096 $(SIM_SRC) -o $@ -lm
bench-sched: build/sim/bench
	@ci/deps
	build/sim/bench > build/sim/figures
	python3 tests/sim/report.py build/sim/figures docs/bench
