; busy.asm: a boot sector that says BUSY on the serial port, then computes for ever.
bits 16
org 0x7c00
    xor ax, ax
    mov ds, ax
    mov si, text
next:
    lodsb
    test al, al
    jz spin
    mov dx, 0x3f8
    out dx, al
    jmp next
spin:
    cli
.again:
    inc eax
    jmp .again
text db 'BUSY', 13, 10, 0
times 510-($-$$) db 0
dw 0xaa55
