; boot.asm: the boot sector of a micro-guest. Reads the BIOS's memory map to 0x5000 and the guest (CHUNKS times
; 16 KiB) from the disk to 0x10000, then starts it there in flat 32-bit mode, or in real mode at 0x1000:0.
bits 16
org 0x7c00
E820_COUNT equ 0x5000
E820_TABLE equ 0x5010
    jmp 0:start
start:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    sti
    cld
    mov [drive], dl

    mov di, E820_TABLE
    xor ebx, ebx
    xor bp, bp
.map:
    mov eax, 0xe820
    mov ecx, 20
    mov edx, 0x534d4150
    int 0x15
    jc .mapped
    add di, 20
    inc bp
    test ebx, ebx
    jnz .map
.mapped:
    mov [E820_COUNT], bp

.load:
    mov si, packet
    mov ah, 0x42
    mov dl, [drive]
    int 0x13
    jc failed
    add word [packet.segment], 0x400
    add dword [packet.lba], 32
    dec word [chunks]
    jnz .load

    cli
    in al, 0x92             ; A20 on
    or al, 2
    and al, 0xfe
    out 0x92, al
%ifdef REAL
    jmp 0x1000:0
%else
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
    mov eax, 0x10000
    jmp eax
bits 16
%endif

failed:
    mov si, text
.next:
    lodsb
    out 0xe9, al
    test al, al
    jnz .next
    hlt

text    db 'FAIL boot: int 13h', 10, 0
drive   db 0
chunks  dw CHUNKS
align 4
packet  dw 16, 32, 0
.segment dw 0x1000
.lba    dq 1
align 8
gdt dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr dw 23
     dd gdt
times 510-($-$$) db 0
dw 0xaa55
