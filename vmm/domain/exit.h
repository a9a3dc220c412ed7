/* exit.h: what SVM's and VT-x's exit handlers share, in vendor-neutral terms. */
#pragma once

#include "domain/hvm.h"

/* Before entry, when v->work is set: events, ioreq completion, crash. False: do not enter now. */
bool vcpu_do_work(struct vcpu *v);

/* Exits by cause. Each handles the instruction fully, RIP included; insn_bytes 0 when the CPU did
 * not give its length (then it is decoded). */
void exit_cpuid(struct vcpu *v, unsigned insn_bytes);
void exit_rdmsr(struct vcpu *v, unsigned insn_bytes);
void exit_wrmsr(struct vcpu *v, unsigned insn_bytes);
void exit_hlt(struct vcpu *v, unsigned insn_bytes);
/* code_bytes, cpl: get_code_bytes and get_cpl. */
void exit_vmcall(struct vcpu *v, unsigned insn_bytes, unsigned code_bytes, unsigned cpl);
void exit_xsetbv(struct vcpu *v, unsigned insn_bytes);
void exit_nested_fault(struct vcpu *v, paddr_t gpa, uint64_t gla, bool gla_valid, bool write,
                       bool exec, const uint8_t *insn, unsigned insn_bytes);
/* Length of the instruction at RIP when the CPU does not tell: decoded; 0: cannot be read. */
unsigned exit_insn_length(struct vcpu *v);
/* VWORK_RESET: an INIT or SIPI was sent to v; in v's own context. domain/vcpu_boot.c. */
void vcpu_start_requested(struct vcpu *v);
