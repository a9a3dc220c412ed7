# unit.mk: host unit tests. A test names the hypervisor sources it is linked with in its first comment,
# /* sources: vmm/... */, and libraries in its second, /* libs: -l... */ (optional).
UNIT_TESTS  := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN    := $(UNIT_TESTS:tests/unit/%.c=build/unit/%)
UNIT_CFLAGS := -std=gnu11 -g -O1 -Wall -Wextra -Werror -Ivmm -Itests/unit -DHOST_TEST \
               -fsanitize=address,undefined -fno-sanitize-recover=undefined
unit_sources = $(shell sed -n '0,/\*\//{s:^/\* *sources\: *::;s:^ \* ::;s: *\*/.*::;p}' $(1))
unit_libs    = $(shell sed -n '2{s:^/\* *libs\: *:LIBS :;s: *\*/.*::;s:^LIBS ::p}' $(1))

.PHONY: unit unit-build
unit-build: $(UNIT_BIN)
unit: unit-build
	@fail=0; for t in $(UNIT_BIN); do echo "== $$t"; timeout 300 $$t || fail=1; done; exit $$fail

define UNIT_RULE
build/unit/$(1): tests/unit/$(1).c $$(wildcard tests/unit/*.h vmm/*/*.h) $(call unit_sources,tests/unit/$(1).c)
	@mkdir -p $$(@D)
	@echo "  HOSTCC $$@"; gcc $$(UNIT_CFLAGS) $$(filter %.c,$$^) -o $$@ -lcmocka $(call unit_libs,tests/unit/$(1).c)
endef
$(foreach t,$(UNIT_TESTS:tests/unit/%.c=%),$(eval $(call UNIT_RULE,$(t))))

# Fuzz targets, by libFuzzer: FUZZ_SECONDS each, from the kept corpus in tests/fuzz/corpus/NAME if any.
FUZZ_SECONDS ?= 20
FUZZ_TESTS   := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN     := $(FUZZ_TESTS:tests/fuzz/%.c=build/fuzz/%)

.PHONY: fuzz
fuzz: $(FUZZ_BIN)
	@fail=0; for t in $(FUZZ_BIN); do n=$$(basename $$t); mkdir -p build/fuzz/corpus.$$n; \
	    if timeout 300 $$t -max_total_time=$(FUZZ_SECONDS) -verbosity=0 -print_final_stats=1 \
	        build/fuzz/corpus.$$n $$(ls -d tests/fuzz/corpus/$$n 2>/dev/null) > build/fuzz/$$n.log 2>&1; \
	    then echo "ok - fuzz $$n: $$(grep -o 'number_of_executed_units: [0-9]*' build/fuzz/$$n.log)"; \
	    else echo "not ok - fuzz $$n: see build/fuzz/$$n.log"; fail=1; fi; done; exit $$fail

define FUZZ_RULE
build/fuzz/$(1): tests/fuzz/$(1).c $$(wildcard tests/unit/*.h vmm/*/*.h) $$(wildcard $(call unit_sources,tests/fuzz/$(1).c))
	@mkdir -p $$(@D)
	@echo "  FUZZCC $$@"; clang -std=gnu11 -g -O1 -Ivmm -Itests/unit -DHOST_TEST \
	    -fsanitize=fuzzer,address,undefined $$(filter %.c,$$^) -o $$@
endef
$(foreach t,$(FUZZ_TESTS:tests/fuzz/%.c=%),$(eval $(call FUZZ_RULE,$(t))))
