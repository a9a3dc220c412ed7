; memory.asm: a boot sector that looks at RAM from 10 MiB to 31 MiB through flat 32-bit segments. It says
; MEMORY-ZERO or MEMORY-DIRTY on the serial port, fills that RAM with a pattern, says MEMORY-FILLED, spins.
bits 16
org 0x7c00
FIRST equ 10 << 20
LAST  equ 31 << 20         ; the BIOS works just below 32 MiB
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    in al, 0x92             ; A20 on
    or al, 2
    and al, 0xfe
    out 0x92, al
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:flat
bits 32
flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov edi, FIRST
    mov ecx, (LAST - FIRST) / 4
    xor eax, eax
    cld
    repe scasd
    mov esi, zero
    je said
    mov edx, edi            ; where the first word is (plus 4), then what it holds
    call hex
    mov edx, [edi - 4]
    call hex
    mov esi, dirty
said:
    call say
    mov edi, FIRST
    mov ecx, (LAST - FIRST) / 4
    mov eax, 0x5ec2e75e
    rep stosd
    mov esi, filled
    call say
stop:
    pause                   ; not hlt: with interrupts off that is a power-off
    jmp stop
say:
    lodsb
    test al, al
    jz .done
    mov dx, 0x3f8
    out dx, al
    jmp say
.done:
    ret
hex:                        ; EDX in hexadecimal and a space
    mov ebx, edx
    mov ecx, 8
    mov dx, 0x3f8
.digit:
    rol ebx, 4
    mov al, bl
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das
    out dx, al
    loop .digit
    mov al, ' '
    out dx, al
    ret
zero   db 'MEMORY-ZERO', 13, 10, 0
dirty  db 'MEMORY-DIRTY', 13, 10, 0
filled db 'MEMORY-FILLED', 13, 10, 0
align 8
gdt dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr dw 23
     dd gdt
times 510-($-$$) db 0
dw 0xaa55
