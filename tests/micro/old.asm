; old.asm: what old.c cannot say in C: tasks' entry points, 16-bit protected mode.
global task_start, task_start_error, pm16_trip
extern low_trip, low_back
global task_came, task_error, task_cr0, task_tr, task_hook
bits 32
section .text
; Where a task of a gate begins, without and with an error code on its stack. It notes what it sees, calls
; *task_hook (when set) and returns by IRET; the next time it goes on behind that.
task_start_error:
    pop dword [task_error]
    call seen
    iretd
    jmp task_start_error
task_start:
    call seen
    iretd
    jmp task_start
seen:
    inc dword [task_came]
    str ax
    mov [task_tr], ax
    mov eax, cr0
    mov [task_cr0], eax
    clts
    mov eax, [task_hook]
    test eax, eax
    jz .none
    call eax
.none:
    ret

; uint32_t pm16_trip(uint32_t value): in 16-bit protected mode, on a 16-bit stack: works through a segment
; (selector 160: base 0xb8000), port and CPUID exits, and the stack's wrap at 64 KiB. value + 0x77 when all is well.
pm16_trip:
    pushad
    mov ebx, [esp + 36]
    mov esi, blob
    mov ecx, blob_end - blob
    call low_trip
    mov [esp + 28], ebx
    popad
    ret
bits 16
blob:
    mov ax, 40
    mov ds, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov ax, 160
    mov es, ax
    xor sp, sp              ; the first push wraps to 0xfffe
    push word 0x1234
    cmp sp, 0xfffe
    jne .bad
    pop ax
    test sp, sp
    jnz .bad
    mov sp, 0x6f00
    mov di, 0x20            ; words into VGA text memory, and back
    mov ax, 0x0741
    mov cx, 4
    cld
    rep stosw
    cmp di, 0x28
    jne .bad
    mov ax, [es:0x26]
    cmp ax, 0x0741
    jne .bad
    add word [es:0x24], 0x0102
    cmp word [es:0x24], 0x0843
    jne .bad
    push bx
    xor eax, eax
    cpuid
    mov dx, 0x3d4           ; the device model's
    mov al, 0x0e
    out dx, al
    inc dx
    in al, dx
    in al, 0x21             ; the hypervisor's
    pop bx
    add bx, 0x77
.bad:
    movzx ebx, bx
    jmp dword 8:low_back
blob_end:

section .bss
alignb 4
task_came  resd 1
task_error resd 1
task_cr0   resd 1
task_tr    resd 1
task_hook  resd 1
section .note.GNU-stack noalloc noexec nowrite progbits
