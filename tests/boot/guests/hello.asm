; hello.asm: a boot sector that says on the serial port where it was booted from (NAME is given to the assembler) and
; on which BIOS drive, then halts.
%ifndef NAME
%define NAME 'somewhere'
%endif
bits 16
org 0x7c00
    jmp 0:start
start:
    xor ax, ax
    mov ds, ax
    mov al, dl
    call hex
    mov [drive + 1], al
    mov al, dl
    shr al, 4
    call hex
    mov [drive], al
    mov si, text
next:
    lodsb
    test al, al
    jz stop
    mov ah, al
    mov dx, 0x3fd
.busy:
    in al, dx
    test al, 0x20
    jz .busy
    mov al, ah
    mov dx, 0x3f8
    out dx, al
    jmp next
stop:
    hlt
    jmp stop
hex:                        ; AL's lower four bits as a digit
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .ok
    add al, 'a' - '9' - 1
.ok:
    ret
text db 13, 10, 'BOOTED-FROM ', NAME, ' DRIVE '
drive db '..', 13, 10, 0
times 510-($-$$) db 0
dw 0xaa55
