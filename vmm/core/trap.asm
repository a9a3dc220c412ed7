; trap.asm: the 256 interrupt and exception stubs; each ends in trap_dispatch(struct trap_frame *).
; No IST anywhere: the guest's TR may be loaded while the host runs, and RSP is always valid here.
extern trap_dispatch
global trap_stubs, svm_nmi_window

%macro PUSH_GPRS 0
        push rax
        push rcx
        push rdx
        push rbx
        push rbp
        push rsi
        push rdi
        push r8
        push r9
        push r10
        push r11
        push r12
        push r13
        push r14
        push r15
%endmacro

section .text
trap_common:
        PUSH_GPRS
        cld
        mov rdi, rsp
        lea rbp, [rsp + 10 * 8]                 ; the frame's saved rbp chain: see trap_frame
        mov rbp, [rbp]
        call trap_dispatch
        pop r15
        pop r14
        pop r13
        pop r12
        pop r11
        pop r10
        pop r9
        pop r8
        pop rdi
        pop rsi
        pop rbp
        pop rbx
        pop rdx
        pop rcx
        pop rax
        add rsp, 16                             ; vector, error code
        iretq

; Vectors whose exceptions push an error code: 8, 10-14, 17, 21, 29, 30 (APM 2, 8.2).
%assign v 0
%rep 256
stub_ %+ v:
%if !((v == 8) || (v >= 10 && v <= 14) || (v == 17) || (v == 21) || (v == 29) || (v == 30))
        push qword 0
%endif
        push qword v
        jmp trap_common
%assign v v + 1
%endrep

section .rodata
align 8
trap_stubs:
%assign v 0
%rep 256
        dq stub_ %+ v
%assign v v + 1
%endrep
