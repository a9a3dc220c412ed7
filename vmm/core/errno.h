/* errno.h: error numbers, those of the public ABI; functions return them negated. */
#pragma once

#ifdef HOST_TEST
#include <errno.h>
#ifndef ERESTART
#define ERESTART 85
#endif
#else
#define XEN_ERRNO(name, value) name = value,
enum {                /* the header lists each as XEN_ERRNO(NAME, number) */
       ERESTART = 85, /* ours alone: the header hides it from all but Xen itself */
#include <xen/errno.h>
};
#undef XEN_ERRNO
#endif
