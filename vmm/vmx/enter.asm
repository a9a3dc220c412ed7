; enter.asm: the world switch (SDM 3C, 26.1, 27.5).
;
; bool vmx_enter(struct guest_regs *regs, bool launched, uint64_t *host_rsp)
; Called with IF clear, the vCPU's VMCS current. RSP, RIP and RFLAGS are the VMCS's business; the other
; GPRs move between the CPU and regs->gpr. *host_rsp is what VMCS.HOST_RSP holds: written when this pCPU's
; stack is another. An exit lands at vmx_exit with RSP as it was at entry and RFLAGS = 2. False after
; an exit, true when the CPU refused to enter (VMfail); then regs are untouched.
global vmx_enter, vmx_exit
%define GPR(n) [rax + (n) * 8]
HOST_RSP equ 0x6c14

section .text
vmx_enter:
        push rbp
        push rbx
        push r12
        push r13
        push r14
        push r15
        push rdi
        cmp [rdx], rsp
        je .rsp_known
        mov [rdx], rsp
        mov eax, HOST_RSP
        vmwrite rax, rsp
.rsp_known:
        test sil, sil                           ; MOV leaves the flags until the jump
        mov rax, rdi
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
        mov rax, GPR(0)
        jnz .resume
        vmlaunch
        jmp .refused
.resume:
        vmresume
.refused:
        mov eax, 1
        jmp leave_guest

vmx_exit:
        push rax
        mov rax, [rsp + 8]                      ; regs
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
        pop rcx
        mov GPR(0), rcx
        xor eax, eax
leave_guest:
        add rsp, 8
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbx
        pop rbp
        ret
