; modes.asm: trips from flat 32-bit mode without paging to other modes and back, for prot.c.
global long_trip, real_trip, v86_go
extern gdtr
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

; uint32_t real_trip(value): value + 0x1000, added in real mode.
REAL equ 0x7000
real_trip:
    pushad
    mov esi, blob
    mov edi, REAL
    mov ecx, blob_end - blob
    cld
    rep movsb
    mov ebx, [esp + 36]
    mov [REAL + saved - blob], esp
    mov eax, .back
    mov [REAL + back_to - blob], eax
    sidt [REAL + old_idtr - blob]
    jmp 32:REAL
.back:
    lidt [REAL + old_idtr - blob]
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
    jmp 0:REAL + .real - blob
.real:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    lidt [REAL + ivt - blob]
    add bx, 0x1000
    push bx
    xor eax, eax
    cpuid
    pop bx
    movzx ebx, bx
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:REAL + .protected - blob
bits 32
.protected:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, [REAL + saved - blob]
    jmp [REAL + back_to - blob]
ivt      dw 0x3ff
         dd 0
old_idtr dw 0
         dd 0
saved    dd 0
back_to  dd 0
blob_end:

; V86 mode at 0x700:0 with all segments 0x700.
v86_go:
    push dword 0x700        ; gs fs ds es
    push dword 0x700
    push dword 0x700
    push dword 0x700
    push dword 0x700        ; ss
    push dword 0xf00
    push dword 0x20002      ; VM, IOPL 0
    push dword 0x700
    push dword 0
    iretd
section .note.GNU-stack noalloc noexec nowrite progbits
