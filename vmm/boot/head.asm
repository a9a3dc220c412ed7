; head.asm: from a Multiboot loader's 32-bit mode (Multiboot 1: eax = 0x2BADB002, Multiboot 2:
; 0x36D76289, ebx = information) and from an AP's real mode to C in long mode.
;
; The image is linked at IMAGE_BASE + 1 MiB and loaded at 1 MiB, so PHYS(symbol) is its load address.

IMAGE_BASE equ 0xffffffff80000000
%define PHYS(x) ((x) - IMAGE_BASE)

extern boot_main, ap_main, image_end, bss_start, bss_end, image_start
global start32, ap_trampoline, ap_trampoline_end, ap_cr3, ap_stack, boot_pml4, boot_stack
global relocate_image, gdt64

section .multiboot
align 8
mb1:    dd 0x1BADB002, 3, -(0x1BADB002 + 3)     ; page-aligned modules, memory map
align 8
mb2:    dd 0xE85250D6, 0, mb2_end - mb2, -(0xE85250D6 + mb2_end - mb2)
        align 8
        dw 1, 0                                 ; information request: cmdline, modules, mmap, ACPI
        dd 8 + 5 * 4
        dd 1, 3, 6, 14, 15
        align 8
        dw 6, 0                                 ; modules page-aligned
        dd 8
        align 8                                 ; no framebuffer tag: GRUB 2.06 dies of it on Bochs
        dw 0, 0                                 ; end
        dd 8
mb2_end:

section .text.boot exec
bits 32
start32:
        cli
        cld
        mov esp, PHYS(boot_stack.top)
        mov ebp, eax                            ; magic
        ; Long mode there? (APM 3, CPUID Fn8000_0001_EDX[29])
        mov eax, 0x80000000
        push ebx
        cpuid
        cmp eax, 0x80000001
        jb .no_lm
        mov eax, 0x80000001
        cpuid
        bt edx, 29
        jnc .no_lm
        pop ebx
        ; Boot tables: first 4 GiB at 0, at the direct map and (1 GiB) at the image's base.
        mov edi, PHYS(boot_pd)
        xor ecx, ecx
.pd:    mov eax, ecx
        shl eax, 21
        or eax, 0x83
        mov [edi + ecx * 8], eax
        mov dword [edi + ecx * 8 + 4], 0
        inc ecx
        cmp ecx, 2048
        jb .pd
        mov eax, PHYS(boot_pd) + 3
        mov edi, PHYS(boot_pdpt)
        mov ecx, 4
.pdpt:  mov [edi], eax
        add eax, 0x1000
        add edi, 8
        loop .pdpt
        mov dword [PHYS(boot_pdpt_image) + 510 * 8], PHYS(boot_pd) + 3
        mov dword [PHYS(boot_pml4)], PHYS(boot_pdpt) + 3
        mov dword [PHYS(boot_pml4) + 256 * 8], PHYS(boot_pdpt) + 3
        mov dword [PHYS(boot_pml4) + 272 * 8], PHYS(boot_pdpt) + 3
        mov dword [PHYS(boot_pml4) + 511 * 8], PHYS(boot_pdpt_image) + 3
        mov eax, PHYS(boot_pml4)
        mov cr3, eax
        call enable_long
        lgdt [PHYS(gdt_ptr32)]
        jmp 8:PHYS(.l64)
bits 64
.l64:   mov rax, .high
        jmp rax
.high:  lgdt [gdt_ptr64]
        mov eax, 16
        mov ss, eax
        mov ds, eax
        mov es, eax
        xor eax, eax
        mov fs, eax
        mov gs, eax
        mov rsp, boot_stack.top
        mov edi, ebp
        mov esi, ebx
        xor ebp, ebp
        call boot_main
.hang:  hlt
        jmp .hang

bits 32
.no_lm: mov esi, PHYS(msg_no_lm)
.put:   lodsb
        test al, al
        jz .stop
        mov ah, al
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        mov al, ah
        mov dx, 0x3f8
        out dx, al
        jmp .put
.stop:  hlt
        jmp .stop

; PAE, NXE and LME, then paging with write protection. Clobbers eax, ecx, edx.
enable_long:
        mov eax, cr4
        or eax, 0x620                           ; PAE, OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 0x900                           ; LME, NXE
        wrmsr
        mov eax, cr0
        and eax, ~0x6000000c                    ; EM, TS, CD, NW off
        or eax, 0x80010022                      ; PG, WP, NE, MP
        mov cr0, eax
        ret

; relocate_image(rdi destination (direct map), rsi source, rdx bytes, rcx new CR3): copies the image,
; this stack included, and continues in the copy.
bits 64
relocate_image:
        mov rax, rcx
        mov rcx, rdx
        rep movsb
        mov cr3, rax
        ret

; An AP starts here in real mode at a page below 1 MiB (SDM 3A, 8.4.3), copied there by smp.c.
bits 16
align 16
ap_trampoline:
        cli
        cld
        mov ax, cs
        mov ds, ax
        movzx ebx, ax
        shl ebx, 4                              ; linear address of this page
        o32 lgdt [ap_gdt_ptr - ap_trampoline]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        lea eax, [ebx + .p32 - ap_trampoline]
        mov [.far - ap_trampoline], eax
        jmp dword far [.far - ap_trampoline]
.far:   dd 0
        dw 24
bits 32
.p32:   mov eax, 16
        mov ds, eax
        mov ss, eax
        mov es, eax
        mov eax, [ebx + ap_cr3 - ap_trampoline]
        mov cr3, eax
        mov eax, cr4
        or eax, 0x620
        mov cr4, eax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 0x900
        wrmsr
        mov eax, cr0
        and eax, ~0x6000000c
        or eax, 0x80010022
        mov cr0, eax
        lea eax, [ebx + .p64 - ap_trampoline]
        mov [ebx + .far64 - ap_trampoline], eax
        jmp far [ebx + .far64 - ap_trampoline]
.far64: dd 0
        dw 8
bits 64
.p64:   mov rsp, [ebx + ap_stack - ap_trampoline]
        mov rax, ap_high
        jmp rax
align 8
ap_cr3:   dq 0
ap_stack: dq 0
ap_gdt:   dq 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
ap_gdt_ptr: dw 31
        dd 0x8000 + ap_gdt - ap_trampoline      ; smp.c puts the trampoline at AP_TRAMPOLINE_PA
ap_trampoline_end:

ap_high:
        lgdt [gdt_ptr64]
        mov eax, 16
        mov ss, eax
        mov ds, eax
        mov es, eax
        xor ebp, ebp
        call ap_main
.hang:  hlt
        jmp .hang

section .data
align 8
gdt64:  dq 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
gdt_ptr32: dw 31
        dd PHYS(gdt64)
align 8
gdt_ptr64: dw 31
        dq gdt64
msg_no_lm: db 13, 10, "Ringfence: this CPU has no 64-bit mode (CPUID 80000001h EDX bit 29)", 13, 10, 0

section .bss nobits
alignb 4096
boot_pml4: resb 4096
boot_pdpt: resb 4096
boot_pdpt_image: resb 4096
boot_pd: resb 4 * 4096
alignb 16384
boot_stack: resb 16384
.top:
