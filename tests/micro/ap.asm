; ap.asm: where SIPI starts a further CPU: copied to 0x8000, on to 64 bits, the stack ap_stack and ap_main.
%include "macros.inc"
global ap_blob, ap_blob_end
extern gdt, idtr, long_mode, ap_main, ap_stack
section .text
bits 16
ap_blob:
    cli
    xor ax, ax
    mov ds, ax
    o32 lgdt [0x8000 + descriptor - ap_blob]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:protected
align 4
descriptor dw 27 * 8 - 1
           dd gdt
ap_blob_end:
bits 32
protected:
    flat_segments
    mov esp, [ap_stack]
    call long_mode
    jmp 24:in_long
bits 64
in_long:
    lidt [idtr]
    call ap_main
.stop:
    hlt
    jmp .stop
section .note.GNU-stack noalloc noexec nowrite progbits
