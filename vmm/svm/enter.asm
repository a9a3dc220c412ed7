; enter.asm: the world switch (APM 2, 15.5 and 15.6).
;
; void svm_enter(paddr_t vmcb_pa, struct guest_regs *regs)
; Called with GIF clear and IF clear. RAX, RSP, RIP and RFLAGS are the VMCB's business; the other
; GPRs move between the CPU and regs->gpr. IF is set around VMRUN so that, with V_INTR_MASKING,
; a physical interrupt ends the guest; GIF = 0 holds it off until the caller's STGI.
global svm_enter
%include "vmm/core/gprs.inc"

section .text
svm_enter:
        PUSH_CALLEE_SAVED
        push rsi
        push rdi                                ; on top: VMCB
        sti                                     ; GIF is 0: for the guest's time. Not next to VMRUN: QEMU TCG
                                                ; would take its shadow along and V_IRQ an instruction late
        mov rax, rsi
        LOAD_GPRS
        pop rax
        vmrun
        cli
        mov rax, [rsp]                          ; regs
        STORE_GPRS
        add rsp, 8
        POP_CALLEE_SAVED
        ret
