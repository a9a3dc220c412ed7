; enter.asm: the world switch (APM 2, 15.5 and 15.6).
;
; void svm_enter(paddr_t vmcb_pa, struct guest_regs *regs)
; Called with GIF clear and IF clear. RAX, RSP, RIP and RFLAGS are the VMCB's business; the other
; GPRs move between the CPU and regs->gpr. IF is set around VMRUN so that, with V_INTR_MASKING,
; a physical interrupt ends the guest; GIF = 0 holds it off until the caller's STGI.
global svm_enter
%define GPR(n) [rax + (n) * 8]

section .text
svm_enter:
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        push rsi
        push rdi                                ; on top: VMCB
        sti                                     ; GIF is 0: for the guest's time. Not next to VMRUN: QEMU TCG
                                                ; would take its shadow along and V_IRQ an instruction late
        mov rax, rsi
        mov rcx, GPR(1)
        mov rdx, GPR(2)
        mov rbx, GPR(3)
        mov rbp, GPR(5)
        mov rsi, GPR(6)
        mov rdi, GPR(7)
        mov r8, GPR(8)
        mov r9, GPR(9)
        mov r10, GPR(10)
        mov r11, GPR(11)
        mov r12, GPR(12)
        mov r13, GPR(13)
        mov r14, GPR(14)
        mov r15, GPR(15)
        pop rax
        vmrun
        cli
        mov rax, [rsp]                          ; regs
        mov GPR(1), rcx
        mov GPR(2), rdx
        mov GPR(3), rbx
        mov GPR(5), rbp
        mov GPR(6), rsi
        mov GPR(7), rdi
        mov GPR(8), r8
        mov GPR(9), r9
        mov GPR(10), r10
        mov GPR(11), r11
        mov GPR(12), r12
        mov GPR(13), r13
        mov GPR(14), r14
        mov GPR(15), r15
        add rsp, 8
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbx
        pop rbp
        ret
