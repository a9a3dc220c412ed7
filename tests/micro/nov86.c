/* nov86.c: prot without virtual-8086 mode, an exit from which stops Bochs' SVM (README.md). */
#define WITHOUT_V86
#include "prot.c"
