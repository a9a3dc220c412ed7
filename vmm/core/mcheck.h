/* mcheck.h: machine checks. */
#pragma once

/* Have this pCPU's hardware errors raise #MC: without CR4.MCE they would shut it down in silence.
 */
void mcheck_cpu_up(void);
/* Print what this pCPU's banks hold. In #MC's handler; a panic follows. */
void mcheck_log(void);
