# bench.mk: the benchmarks' programs: build/micro/bench-{exits,scale,tlb,echo,idle,storm}.img, micro-guests made as tests/micro's
# are, build/bench/work, a static program for Linux guests and dom0, build/bench/programs.sqfs, which adds fio, and build/kvm,
# the Linux that runs KVM.
BENCH := tests/bench

.PHONY: bench-build
bench-build: $(patsubst %,build/micro/bench-%.img,exits scale tlb echo idle storm) build/bench/programs.sqfs build/kvm/initrd

build/kvm/initrd: $(BENCH)/kvm/build $(BENCH)/kvm/init build/dom0/vmlinuz
	@echo "  BENCH $@"; $(BENCH)/kvm/build build/dom0/vmlinuz $(dir $(realpath build/dom0/root.sqfs))modules.tar $(@D)

build/bench/work: $(BENCH)/work.c
	@mkdir -p $(@D)
	@echo "  BENCH $@"; gcc -std=gnu11 -static -O2 -s -Wall -Wextra -Werror $< -o $@

build/bench/programs.sqfs: build/bench/work $(BENCH)/programs $(BENCH)/fio-work
	@echo "  BENCH $@"; $(BENCH)/programs $< $@

build/micro/bench-%.bin: $(BENCH)/%.c $(MICRO)/lib.c $(wildcard $(MICRO)/*.h $(MICRO)/*.inc $(MICRO)/*.asm $(MICRO)/*.ld)
	@mkdir -p $(@D)
	@echo "  BENCH $@"
	@$(foreach a,entry $(if $(filter exits scale storm tlb,$*),ap),nasm -I $(MICRO)/ -f elf64 -DM64 $(MICRO)/$(a).asm -o build/micro/$(a).bench-$*.o;)
	@gcc $(MICRO_M64) $(MICRO_CFLAGS) $(BENCH_ONLY) -I$(MICRO) -nostdlib -static -Wl,--no-warn-rwx-segments -Wl,--build-id=none \
	    -T $(MICRO)/link.ld build/micro/entry.bench-$*.o $(if $(filter exits scale storm tlb,$*),build/micro/ap.bench-$*.o) $< $(MICRO)/lib.c -o $(@:.bin=.elf)
	@objcopy -O binary $(@:.bin=.elf) $@

# The hypervisor with DEBUG=1, in a tree of its own: build/debug-tree/build/ringfence.
.PHONY: debug-image
debug-image:
	@mkdir -p build/debug-tree; for name in GNUmakefile vmm; do ln -sfn ../../$$name build/debug-tree/$$name; done
	@$(MAKE) --no-print-directory -s -C build/debug-tree vmm DEBUG=1

# ringfence-bench, for dom0 on any machine, with its guests.
BENCH_FILES := $(addprefix $(BENCH)/,exits-job life-job pv-guest pv-work ringfence-bench) $(MICRO)/dom0-job build/bench/work \
               build/micro/bench-exits.img build/micro/bench-echo.img build/micro/bench-idle.img build/guest/guest.iso build/guest/nopv.iso
.PHONY: install-bench
install-bench: appliance
	@$(MAKE) --no-print-directory -s build/bench/work build/micro/bench-exits.img build/micro/bench-echo.img build/micro/bench-idle.img
	install -d $(DESTDIR)$(PREFIX)/lib/ringfence/bench $(DESTDIR)$(PREFIX)/sbin
	install -m 644 $(BENCH_FILES) $(DESTDIR)$(PREFIX)/lib/ringfence/bench
	install -m 755 $(BENCH)/ringfence-bench $(DESTDIR)$(PREFIX)/sbin/ringfence-bench
