; triplefault.asm: a boot sector that says so on the serial port, then triple-faults.
bits 16
org 0x7c00
    xor ax, ax
    mov ds, ax
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
    lidt [none]
    mov eax, cr0
    or al, 1
    mov cr0, eax            ; protected mode without a valid IDT: the first exception is the last
    int3
    hlt
text db 'TRIPLE-FAULT NEXT', 13, 10, 0
none dw 0
     dd 0
times 510-($-$$) db 0
dw 0xaa55
