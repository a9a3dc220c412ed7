; shades.asm: a boot sector that fills a linear framebuffer of 640x480, 24 bits, with one shade of grey after another,
; some time each, for ever.
SHADES equ 0xc08040
bits 16
org 0x7c00
    jmp 0:start
start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ax, 0x4f01              ; VBE 3.0: mode information; the framebuffer's address is at 40
    mov cx, 0x112
    mov di, 0x8000
    int 0x10
    mov ax, 0x4f02
    mov bx, 0x4112
    int 0x10
    cli
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
    mov esi, SHADES
next:
    mov eax, esi
    and eax, 0xff
    imul eax, 0x01010101
    mov edi, [0x8000 + 40]
    mov ecx, 640 * 480 * 3 / 4
    rep stosd
    shr esi, 8
    jnz .wait
    mov esi, SHADES
.wait:
    rdtsc                       ; 2^32 ticks: one to two seconds
    mov ebx, edx
.more:
    rdtsc
    cmp edx, ebx
    je .more
    jmp next
align 8
gdt dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr dw 23
    dd gdt
times 510-($-$$) db 0
dw 0xaa55
