# bench.mk: the benchmarks' micro-guests, made as tests/micro's are: tests/bench/NAME.c makes build/micro/bench-NAME.img.
BENCH     := tests/bench
BENCH_IMG := $(patsubst $(BENCH)/%.c,build/micro/bench-%.img,$(wildcard $(BENCH)/*.c))

.PHONY: bench-build
bench-build: $(BENCH_IMG)

build/micro/bench-%.bin: $(BENCH)/%.c $(MICRO)/lib.c $(wildcard $(MICRO)/*.h $(MICRO)/*.asm $(MICRO)/*.ld)
	@mkdir -p $(@D)
	@echo "  BENCH $@"
	@$(foreach a,entry ap,nasm -f elf64 -DM64 $(MICRO)/$(a).asm -o build/micro/$(a).bench-$*.o;)
	@gcc $(MICRO_M64) $(MICRO_CFLAGS) $(BENCH_ONLY) -I$(MICRO) -nostdlib -static -Wl,--no-warn-rwx-segments -Wl,--build-id=none \
	    -T $(MICRO)/link.ld build/micro/entry.bench-$*.o build/micro/ap.bench-$*.o $< $(MICRO)/lib.c -o $(@:.bin=.elf)
	@objcopy -O binary $(@:.bin=.elf) $@
