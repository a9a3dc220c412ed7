; modes.asm: trips from flat 32-bit mode without paging to other modes and back, for prot.c and old.c.
%include "macros.inc"
global long_trip, real_trip, low_trip, low_back, v86_start
bits 32
section .text
; uint32_t long_trip(pml4): a number computed in 64-bit mode.
long_trip:
    push ebx
    mov eax, [esp + 8]
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax            ; compatibility mode
    mov ebx, 0x12345678
    jmp 24:.long
bits 64
.long:
    mov r8, 0x1122334455667788
    mov r9, r8
    shr r9, 32
    cmp r9d, 0x11223344
    jne .back
    xor eax, eax
    push rbx
    cpuid                   ; exits in this mode too
    pop rbx
    inc ebx
.back:
    sub rsp, 16
    mov dword [rsp], .compat
    mov dword [rsp + 4], 8
    jmp far dword [rsp]
bits 32
.compat:
    add esp, 16
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x100
    wrmsr
    mov eax, cr4
    and eax, ~0x20
    mov cr4, eax
    mov eax, ebx
    pop ebx
    ret

; low_trip: the 16-bit program of ECX bytes at ESI runs at LOW from the 16-bit code segment, and comes back by a far
; jump to 8:low_back. EBX goes there and back, the other registers and flags are lost.
LOW equ 0x7000
low_trip:
    mov edi, LOW
    cld
    rep movsb
    mov [saved_sp], esp
    sidt [saved_idtr]
    jmp 32:LOW
low_back:
    flat_segments
    mov esp, [saved_sp]
    lidt [saved_idtr]
    ret

; uint32_t real_trip(value): value + 0x1000, added in real mode.
real_trip:
    pushad
    mov ebx, [esp + 36]
    mov esi, blob
    mov ecx, blob_end - blob
    call low_trip
    mov [esp + 28], ebx
    popad
    ret
bits 16
blob:
    mov ax, 40
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:LOW + .real - blob
.real:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    lidt [LOW + ivt - blob]
    add bx, 0x1000
    push bx
    xor eax, eax
    cpuid
    pop bx
    movzx ebx, bx
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:low_back
ivt dw 0x3ff
    dd 0
blob_end:

; void v86_start(uint32_t flags): V86 mode at 0x700:0, segments 0x700, stack at 0x700:0xf00. Never returns.
bits 32
v86_start:
    mov eax, [esp + 4]
    or eax, 0x20002         ; VM
    push dword 0x700        ; gs fs ds es
    push dword 0x700
    push dword 0x700
    push dword 0x700
    push dword 0x700        ; ss
    push dword 0xf00
    push eax
    push dword 0x700
    push dword 0
    iretd
section .bss
alignb 4
saved_sp   resd 1
saved_idtr resw 1
           resd 1
section .note.GNU-stack noalloc noexec nowrite progbits
