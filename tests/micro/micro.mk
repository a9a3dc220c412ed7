# micro.mk: guests of our own, a test of one mode or part of the PC each (tests/micro/README.md).
# tests/micro/NAME.c makes build/micro/NAME.img; prot, nov86, old and hyper32 are 32-bit programs, the others 64-bit ones.
MICRO       := tests/micro
MICRO_32    := $(filter prot nov86 old hyper32,$(basename $(notdir $(wildcard $(MICRO)/*.c))))
MICRO_64    := $(filter-out lib $(MICRO_32),$(basename $(notdir $(wildcard $(MICRO)/*.c))))
MICRO_IMG   := $(patsubst %,build/micro/%.img,real $(MICRO_32) $(MICRO_64))
MICRO_CFLAGS := -std=gnu11 -O1 -g -Wall -Wextra -Werror -ffreestanding -fno-pic -fno-stack-protector \
                -fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -fno-builtin -D__XEN_INTERFACE_VERSION__=0x00040e00
MICRO_M32   := -m32 -march=i686
MICRO_M64   := -m64 -mno-red-zone -mcmodel=small

.PHONY: micro micro-build
micro-build: $(MICRO_IMG)
micro: micro-build
	@$(MAKE) --no-print-directory -s vmm
	@$(MICRO)/run

build/micro/%.img: build/micro/%.bin $(MICRO)/boot.asm
	@nasm -f bin $(if $(filter real,$*),-DREAL) -DCHUNKS=$$((($$(stat -c %s $<) + 16383) / 16384)) $(MICRO)/boot.asm -o $@.sector
	@cat $@.sector $< > $@ && rm $@.sector && truncate -s 1M $@

build/micro/real.bin: $(MICRO)/real.asm
	@mkdir -p $(@D)
	@nasm -f bin $< -o $@

define MICRO_RULE
build/micro/$(1).bin: $(MICRO)/$(1).c $(MICRO)/lib.c $(wildcard $(MICRO)/*.h $(MICRO)/*.inc $(MICRO)/*.asm $(MICRO)/*.ld $(MICRO)/hyper.c) $(if $(filter nov86,$(1)),$(MICRO)/prot.c)
	@mkdir -p $$(@D)
	@echo "  MICRO $$@"
	@nasm -I $(MICRO)/ -f elf$(2) $(if $(filter 64,$(2)),-DM64) $(MICRO)/entry.asm -o build/micro/entry$(2).$(1).o
	@$(foreach a,$(3),nasm -I $(MICRO)/ -f elf$(2) $(MICRO)/$(a).asm -o build/micro/$(a).$(1).o;)
	@gcc $$(MICRO_M$(2)) $$(MICRO_CFLAGS) -nostdlib -static -Wl,--no-warn-rwx-segments -Wl,--build-id=none \
	    -T $(MICRO)/link.ld build/micro/entry$(2).$(1).o $(patsubst %,build/micro/%.$(1).o,$(3)) \
	    $(MICRO)/$(1).c $(MICRO)/lib.c -o build/micro/$(1).elf
	@objcopy -O binary build/micro/$(1).elf $$@
endef
micro_asm = $(if $(filter prot nov86 old,$(1)),modes) $(if $(filter old,$(1)),old) $(if $(filter smp many events clocks,$(1)),ap)
$(foreach t,$(MICRO_32),$(eval $(call MICRO_RULE,$(t),32,$(strip $(call micro_asm,$(t))))))
$(foreach t,$(MICRO_64),$(eval $(call MICRO_RULE,$(t),64,$(strip $(call micro_asm,$(t))))))
