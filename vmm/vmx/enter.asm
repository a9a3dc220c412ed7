; enter.asm: the world switch (SDM 3C, 26.1, 27.5).
;
; bool vmx_enter(struct guest_regs *regs, bool launched, uint64_t *host_rsp)
; Called with IF clear, the vCPU's VMCS current. RSP, RIP and RFLAGS are the VMCS's business; the other
; GPRs move between the CPU and regs->gpr. *host_rsp is what VMCS.HOST_RSP holds: written when this pCPU's
; stack is another. An exit lands at vmx_exit with RSP as it was at entry and RFLAGS = 2. False after
; an exit, true when the CPU refused to enter (VMfail); then regs are untouched.
global vmx_enter, vmx_exit
%include "vmm/core/gprs.inc"
HOST_RSP equ 0x6c14

section .text
vmx_enter:
        PUSH_CALLEE_SAVED
        push rdi
        cmp [rdx], rsp
        je .rsp_known
        mov [rdx], rsp
        mov eax, HOST_RSP
        vmwrite rax, rsp
.rsp_known:
        test sil, sil                           ; MOV leaves the flags until the jump
        mov rax, rdi
        LOAD_GPRS
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
        STORE_GPRS
        pop rcx
        mov GPR(0), rcx
        xor eax, eax
leave_guest:
        add rsp, 8
        POP_CALLEE_SAVED
        ret
