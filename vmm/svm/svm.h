/* svm.h: the front door of vmm/svm; the rest is behind struct hvm_ops. */
#pragma once

/* Boot: is SVM with nested paging there and unlocked? 0, or -ENODEV, -EOPNOTSUPP, -EPERM after one
 * line that names what is missing. */
int svm_setup(void);
