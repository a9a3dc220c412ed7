/* vmx.h: the front door of vmm/vmx; the rest is behind struct hvm_ops. */
#pragma once

#include "npt/npt.h"

/* Boot: is VT-x with all that we need there and unlocked? 0 and what EPT offers, or -ENODEV (no
 * VT-x at all), -EOPNOTSUPP or -EPERM after one line that names what is missing. */
int vmx_setup(struct p2m_limits *ept);
