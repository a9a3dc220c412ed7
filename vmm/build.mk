# build.mk: the hypervisor: build/ringfence (ELF32, Multiboot 1 and 2) and build/vmm.elf (symbols).
VMM_CC      ?= gcc
VMM_NASM    ?= nasm
VMM_CFLAGS  := -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone \
               -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-strict-aliasing \
               -fno-asynchronous-unwind-tables -fno-omit-frame-pointer -fno-builtin-printf \
               -ffunction-sections -fdata-sections -Wall -Wextra -Werror -Ivmm $(VMM_EXTRA_CFLAGS)
ifneq ($(DEBUG),) # checks the order of locks, and has debug keys that break things
VMM_CFLAGS  += -DDEBUG_BUILD
endif
VMM_SRC_C   := $(sort $(wildcard vmm/boot/*.c vmm/core/*.c vmm/domain/*.c vmm/platform/*.c vmm/npt/*.c \
               vmm/svm/*.c vmm/vmx/*.c))
VMM_SRC_ASM := $(sort $(wildcard vmm/boot/*.asm vmm/core/*.asm vmm/svm/*.asm vmm/vmx/*.asm))
VMM_OBJ     := $(VMM_SRC_C:%.c=build/%.o) $(VMM_SRC_ASM:%.asm=build/%.asm.o)
-include vmm/boot/decompress.mk
VMM_VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: vmm
vmm: build/ringfence

# Changes when DEBUG does, so that nothing is left of the other build.
$(shell mkdir -p build; [ "$$(cat build/debug 2>/dev/null)" = "DEBUG=$(DEBUG)" ] || echo "DEBUG=$(DEBUG)" > build/debug)
build/vmm/%.o: vmm/%.c vmm/build.mk build/debug
	@mkdir -p $(@D)
	@echo "  CC $<"; $(VMM_CC) $(VMM_CFLAGS) -MMD -MP -c $< -o $@
build/vmm/svm/enter.asm.o build/vmm/vmx/enter.asm.o: vmm/core/gprs.inc
build/vmm/%.asm.o: vmm/%.asm vmm/build.mk
	@mkdir -p $(@D)
	@$(VMM_NASM) -f elf64 -g -F dwarf $< -o $@

# Two links: the first gives the addresses for the symbol table that backtraces read.
build/vmm.0.elf: $(VMM_OBJ) vmm/image.lds
	@printf 'section .note.GNU-stack noalloc noexec nowrite progbits\nsection .symtab_blob\n' > build/symbols.0.asm
	$(VMM_NASM) -f elf64 build/symbols.0.asm -o build/symbols.0.o
	@ld -nostdlib -static --gc-sections -z noexecstack -z max-page-size=4096 --build-id=none -T vmm/image.lds -o $@ \
	    $(VMM_OBJ) build/symbols.0.o $(DECOMPRESS_LIBS)
build/symbols.asm: build/vmm.0.elf vmm/symbols.sh
	nm -n $< | sh vmm/symbols.sh > $@
build/vmm.elf: build/vmm.0.elf build/symbols.asm
	$(VMM_NASM) -f elf64 build/symbols.asm -o build/symbols.o
	@ld -nostdlib -static --gc-sections -z noexecstack -z max-page-size=4096 --build-id=none -T vmm/image.lds -o $@ \
	    $(VMM_OBJ) build/symbols.o $(DECOMPRESS_LIBS)
# The container: the flat image, bss included, in an ELF32 whose entry is the 32-bit start.
build/ringfence: build/vmm.elf vmm/wrap.lds
	objcopy --set-section-flags .bss=alloc,load,contents -O binary build/vmm.elf build/vmm.bin
	ld -m elf_i386 -nostdlib -z noexecstack -z max-page-size=4096 --build-id=none -T vmm/wrap.lds --no-warn-rwx-segments \
	    --defsym=entry32=0x$$(nm build/vmm.elf | awk '$$3=="start32"{print substr($$1,9)}' | sed 's/^8/0/') \
	    -b binary build/vmm.bin -o $@

build/vmm/domain/version.o: VMM_CFLAGS += -DRINGFENCE_CHANGESET='"$(VMM_VERSION)"'

-include $(VMM_OBJ:.o=.d)
