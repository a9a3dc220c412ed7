; triplefault.asm: a boot sector that says so on the serial port, then triple-faults.
bits 16
org 0x7c00
    mov ax, 0x2000
    mov es, ax
    xor ax, ax
    mov ds, ax
    xor di, di
    mov cx, 0x400
    cld
    rep stosw
    mov si, text
next:
    lodsb
    test al, al
    jz fault
    mov dx, 0x3f8
    out dx, al
    jmp next
fault:
    cli
    lidt [idt]              ; of zeroes: no gate is present (an empty one would mean: reset me)
    mov eax, cr0
    or al, 1
    mov cr0, eax            ; the first exception is the last
    int3
    hlt
text db 'TRIPLE-FAULT NEXT', 13, 10, 0
idt dw 0x7ff
    dd 0x20000
times 510-($-$$) db 0
dw 0xaa55
