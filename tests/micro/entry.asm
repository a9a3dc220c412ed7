; entry.asm: from the boot sector's flat 32-bit mode to C (in 64 bits with -DM64), the exception stubs, and
; what C cannot say.
%include "macros.inc"
%ifdef M64
    %define WORD 8
    %define ax_ rax
    %define bx_ rbx
    %define bp_ rbp
    %define sp_ rsp
    %define pushf_ pushfq
    %define popf_ popfq
%else
    %define WORD 4
    %define ax_ eax
    %define bx_ ebx
    %define bp_ ebp
    %define sp_ esp
    %define pushf_ pushfd
    %define popf_ popfd
%endif
extern main, isr, bss_start, bss_end
global _start, catch_call, catch_land, catch_sp, stubs, gdt, gdtr, idt, idtr, tss, stack_top, trap_stack_top, user_go
section .entry
bits 32
_start:
    cli
    mov esp, stack_top
    cld
    mov edi, bss_start
    mov ecx, bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov eax, tss            ; the TSS descriptor's base
    mov [gdt + 72 + 2], ax
    shr eax, 16
    mov [gdt + 72 + 4], al
    mov [gdt + 72 + 7], ah
    lgdt [gdtr]
    jmp 8:.reloaded
.reloaded:
    flat_segments
    mov eax, cr0            ; no FPU traps, write protection on
    and eax, ~0x0c
    or eax, 0x10022
    mov cr0, eax
    mov eax, cr4
    or eax, 0x600           ; OSFXSR, OSXMMEXCPT
    mov cr4, eax
    fninit
%ifdef M64
    ; 4 GiB identity-mapped with 2 MiB pages, user-accessible.
    mov dword [pml4], pdpt + 7
    mov eax, pd + 7
    xor ecx, ecx
.dir:
    mov [pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne .dir
    mov eax, 0x87
    xor ecx, ecx
.page:
    mov [pd + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 2048
    jne .page
    call long_mode
    jmp 24:.long
bits 64
.long:
%endif
    mov eax, 72
    ltr ax
    call main
.stop:
    hlt
    jmp .stop

%ifdef M64
; Turn long mode on with the page tables above; also for application processors. Clobbers eax, ecx, edx.
global long_mode
bits 32
long_mode:
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900           ; LME, NXE
    wrmsr
    mov eax, cr0
    and eax, ~0x0c
    or eax, 0x80010022
    mov cr0, eax
    ret
bits 64
%endif

section .text
; long catch_call(void (*fn)(void *), void *arg): 0, or 1 when an exception ended fn.
catch_call:
%ifdef M64
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    push qword [catch_sp]
    mov [catch_sp], rsp
    sub rsp, 8
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
out:
    mov rsp, [catch_sp]
    pop qword [catch_sp]
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
%else
    mov eax, [esp + 4]
    mov edx, [esp + 8]
    push ebx
    push ebp
    push esi
    push edi
    pushfd
    push dword [catch_sp]
    mov [catch_sp], esp
    push edx
    call eax
    xor eax, eax
out:
    mov esp, [catch_sp]
    pop dword [catch_sp]
    popfd
    pop edi
    pop esi
    pop ebp
    pop ebx
    ret
%endif
; Never returns: catch_call answers 1.
catch_land:
    cld
    mov eax, 1
    jmp out

; void user_go(fn): fn in ring 3 on the user stack; it ends with an exception or int 0x80. IOPL 0, IF as now.
user_go:
%ifdef M64
    mov rax, rdi
    pushfq
    pop rcx
    push 56 | 3
    push user_stack_top
    push rcx
    push 64 | 3
    push rax
    iretq
%else
    mov eax, [esp + 4]
    mov ecx, 56 | 3
    mov ds, ecx
    mov es, ecx
    mov fs, ecx
    mov gs, ecx
    pushfd
    pop edx
    push 56 | 3
    push user_stack_top
    push edx
    push 48 | 3
    push eax
    iretd
%endif

%macro STUB 1
    %if %1 == 8 || (%1 >= 10 && %1 <= 14) || %1 == 17
        push strict dword %1
    %else
        push byte 0
        push strict dword %1
    %endif
    jmp common_entry
    align 16
%endmacro
align 16
stubs:
%assign v 0
%rep 256
    STUB v
    %assign v v + 1
%endrep
common_entry:
%ifdef M64
    push r15
    push r14
    push r13
    push r12
    push r11
    push r10
    push r9
    push r8
    push rdi
    push rsi
    push rbp
    push rbx
    push rdx
    push rcx
    push rax
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call isr
    mov rsp, rbp
    pop rax
    pop rcx
    pop rdx
    pop rbx
    pop rbp
    pop rsi
    pop rdi
    pop r8
    pop r9
    pop r10
    pop r11
    pop r12
    pop r13
    pop r14
    pop r15
    add rsp, 16
    iretq
%else
    pushad
    push ds
    push es
    mov eax, 16
    mov ds, eax
    mov es, eax
    cld
    push esp
    call isr
    add esp, 4
    pop es
    pop ds
    popad
    add esp, 8
    iretd
%endif

section .data
align 16
gdt dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff   ; 8 code, 16 data, 24 code64
    dq 0x00009b000000ffff, 0x000093000000ffff                         ; 32 code16, 40 data16
    dq 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff     ; 48, 56, 64: ring 3
    dq 0x0000890000000067, 0                                          ; 72 TSS
    times 16 dq 0                                                     ; 88..: for the tests
gdtr dw 27 * 8 - 1
     dd gdt, 0
catch_sp dq 0

section .bss
alignb 4096
pml4 resb 4096
pdpt resb 4096
pd   resb 4 * 4096
idt  resb 4096
tss  resb 4096
     resb 16384
stack_top:
     resb 8192
trap_stack_top:
     resb 4096
user_stack_top:
section .data
idtr dw 256 * 2 * WORD - 1
     dd idt, 0
section .note.GNU-stack noalloc noexec nowrite progbits
