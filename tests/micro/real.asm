; real.asm: 16-bit real mode, with the limits of real mode and without (unreal), VGA memory included.
; A test is a routine that returns with carry clear (passed) or carry set and SI = why.
bits 16
org 0
BASE equ 0x10000            ; CS = DS = 0x1000
    mov ax, cs
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0xfff0
    cld
    sti
    mov si, plan
    call say
    mov bx, tests
next_test:
    mov [current], bx
    cmp word [bx], 0
    je all_done
    mov [saved_sp], sp
    call [bx]
back:
    mov ax, cs
    mov ds, ax
    mov es, ax
    cld
    sti
    mov bx, [current]
    jc .failed
    mov si, pass
    call say
    mov si, [bx + 2]
    call say
    jmp .line
.failed:
    push si
    mov si, fail
    call say
    mov si, [bx + 2]
    call say
    mov si, colon
    call say
    pop si
    call say
.line:
    mov si, newline
    call say
    add bx, 4
    jmp next_test
all_done:
    mov si, done
    call say
    ; Power off: into flat 32-bit mode, where the hypercall page is.
    cli
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:flat + BASE
bits 32
flat:
    mov ax, 16
    mov ds, ax
    mov ss, ax
    mov esp, 0x80000
    mov eax, 0x40000002
    cpuid
    mov ecx, ebx
    mov eax, 0x60000
    xor edx, edx
    wrmsr
    mov ebx, 2              ; SCHEDOP_shutdown
    mov dword [0x5ff00], 0  ; SHUTDOWN_poweroff
    mov ecx, 0x5ff00
    mov eax, 0x60000 + 29 * 32
    call eax
    lidt [BASE + none]
    int3
bits 16
none dw 0, 0, 0

say:                        ; the string at DS:SI to COM1 and the log
    push ax
    push cx
    push dx
    push si
.len:
    lodsb
    test al, al
    jz .measured
    out 0xe9, al
    jmp .len
.measured:
    mov cx, si
    pop si
    push si
    sub cx, si
    dec cx
    mov dx, 0x3f8
    rep outsb
    pop si
    pop dx
    pop cx
    pop ax
    ret

%macro WHY 2                ; WHY condition, 'text': fail when the condition holds
    j%-1 %%fine
    mov si, %%text
    stc
    ret
%%text db %2, 0
%%fine:
%endmacro

; Catch exception AL: the next one goes to `caught` with SP as here. Preserves nothing but DS.
hook:
    xor ah, ah
    shl ax, 2
    mov di, ax
    push es
    push 0
    pop es
    mov ax, [es:di]
    mov [old_vector], ax
    mov ax, [es:di + 2]
    mov [old_vector + 2], ax
    mov [hooked], di
    mov word [es:di], caught
    mov [es:di + 2], cs
    pop es
    mov byte [came], 0
    ret
unhook:
    push es
    push 0
    pop es
    mov di, [hooked]
    mov ax, [old_vector]
    mov [es:di], ax
    mov ax, [old_vector + 2]
    mov [es:di + 2], ax
    pop es
    ret
caught:                     ; counts, keeps the pushed IP, CS and flags, goes on at [resume] (0: IRET)
    push ax
    push bp
    mov bp, sp
    inc byte [cs:came]
    mov ax, [bp + 4]
    mov [cs:caught_ip], ax
    mov ax, [bp + 6]
    mov [cs:caught_cs], ax
    mov ax, [bp + 8]
    mov [cs:caught_flags], ax
    mov ax, [cs:resume]
    test ax, ax
    jz .return
    mov [bp + 4], ax
.return:
    pop bp
    pop ax
    iret
%macro CATCH 1              ; CATCH vector, then the instruction, then CAUGHT
    mov word [resume], %%go
    mov al, %1
    call hook
    jmp %%do
%%go:
    jmp caught_now
%%do:
%endmacro
caught_now:
    call unhook
    jmp [then]

; ---- tests ----------------------------------------------------------------------------------------
t_flags:                    ; FLAGS in real mode: IF and IOPL as written, bits 1 and 15..12
    smsw ax
    test al, 1
    WHY nz, 'CR0.PE is set'
    cli
    pushf
    pop ax
    test ax, 0x200
    WHY nz, 'IF after CLI'
    sti
    pushf
    pop ax
    test ax, 0x200
    WHY z, 'no IF after STI'
    test ax, 2
    WHY z, 'bit 1 clear'
    clc
    ret

t_divide:
    mov word [then], .after
    CATCH 0
    xor cx, cx
    mov ax, 1
    xor dx, dx
.insn:
    div cx
    mov si, no_exception
    stc
    ret
.after:
    cmp word [caught_ip], .insn
    WHY ne, 'IP is not the DIV'
    mov ax, cs
    cmp [caught_cs], ax
    WHY ne, 'wrong CS'
    test word [caught_flags], 0x200
    WHY z, 'IF not saved'
    clc
    ret

t_int3:
    mov word [resume], 0
    mov al, 3
    call hook
    int3
.next:
    cmp word [caught_ip], .next
    pushf
    call unhook
    popf
    WHY ne, 'IP is not behind the INT3'
    cmp byte [came], 1
    WHY ne, 'not once'
    clc
    ret

t_undefined:
    mov word [then], .after
    CATCH 6
.insn:
    ud2
    mov si, no_exception
    stc
    ret
.after:
    cmp word [caught_ip], .insn
    WHY ne, 'IP is not the UD2'
    clc
    ret

t_limit:                    ; a word at offset FFFF is beyond the limit: #GP, no error code
    mov word [then], .after
    CATCH 13
    mov di, 0xffff
.insn:
    mov ax, [di]
    mov si, no_exception
    stc
    ret
.after:
    cmp word [caught_ip], .insn
    WHY ne, 'IP is not the MOV'
    clc
    ret

t_stack_limit:              ; and on the stack segment #SS
    mov word [then], .after
    CATCH 12
    mov bp, 0xffff
.insn:
    mov ax, [bp]
    mov si, no_exception
    stc
    ret
.after:
    cmp word [caught_ip], .insn
    WHY ne, 'IP is not the MOV'
    clc
    ret

t_idtr:                     ; the IVT is where IDTR says
    cli
    push es
    sidt [old_idtr]
    push ds
    xor ax, ax
    mov ds, ax
    mov ax, 0x7000
    mov es, ax
    xor si, si
    xor di, di
    mov cx, 512
    rep movsw
    pop ds
    mov word [es:0x70 * 4], .handler
    mov [es:0x70 * 4 + 2], cs
    pop es
    mov byte [came], 0
    lidt [new_idtr]
    int 0x70
    lidt [old_idtr]
    sti
    cmp byte [came], 0x70
    WHY ne, 'the handler did not run'
    clc
    ret
.handler:
    mov byte [cs:came], 0x70
    iret

t_step:                     ; TF: one #DB for each instruction, exits included
    mov word [resume], 0
    mov al, 1
    call hook
    cli
    pushf
    pop ax
    or ax, 0x100
    xor bx, bx
    push ax
    push cs
    push .go
    iret
.go:
    xor eax, eax            ; 1
    cpuid                   ; 2
    mov al, ' '             ; 3
    out 0x80, al            ; 4
    in al, 0x21             ; 5
    pushf                   ; 6
    pop ax                  ; 7
    and ax, ~0x100          ; 8
    push ax                 ; 9
    popf                    ; 10: clears TF, #DB after it all the same
    sti
    call unhook
    mov al, [came]
    cmp al, 10
    WHY ne, 'not 10 #DB'
    clc
    ret

go_big:                     ; DS and ES with a limit of 4 GiB, base 0
    cli
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp $ + 2
    mov cx, 16
    mov ds, cx
    mov es, cx
    and al, 0xfe
    mov cr0, eax
    jmp 0x1000:.real
.real:                      ; interrupts stay off: the BIOS may load segments in protected mode
    xor cx, cx
    mov ds, cx
    mov es, cx
    ret

t_unreal:                   ; the limit stays when a selector is loaded in real mode
    call go_big
    mov edi, 0x200000
    mov dword [edi], 0x12345678
    mov ecx, [edi]
    mov byte [edi + 3], 0x9a
    mov edx, [edi]
    mov ax, cs
    mov ds, ax
    cmp ecx, 0x12345678
    WHY ne, 'read back at 2 MiB'
    cmp edx, 0x9a345678
    WHY ne, 'byte at 2 MiB'
    clc
    ret

t_unreal_string:
    call go_big
    mov edi, 0x300000
    mov eax, 0xa5a5f00f
    mov ecx, 1024
    a32 rep stosd
    mov esi, 0x300000
    mov edi, 0x400000
    mov ecx, 1024
    a32 rep movsd
    mov edi, 0x400000
    mov ecx, 1024
    a32 repe scasd
    mov bx, cs
    mov ds, bx
    WHY ne, 'the copy differs'
    clc
    ret

t_unreal_exits:             ; limits survive exits to the hypervisor and to the device model
    call go_big
    xor eax, eax
    cpuid
    mov dx, 0x3fb
    in al, dx
    mov edi, 0x200000
    mov dword [edi], 0x600d600d
    mov ecx, [edi]
    mov ax, cs
    mov ds, ax
    cmp ecx, 0x600d600d
    WHY ne, 'read back at 2 MiB'
    clc
    ret

t_vga_graphics:             ; REP STOSW and MOVSW to A0000 and back in mode 13h
    mov ax, 0x13
    int 0x10
    mov ax, 0xa000
    mov es, ax
    xor di, di
    mov ax, 0x1357
    mov cx, 300
    rep stosw
    mov si, 0               ; our own code as the pattern
    mov di, 600
    mov cx, 200
    rep movsw
    push ds
    mov ax, es
    mov ds, ax
    mov ax, 0x6000
    mov es, ax
    xor si, si
    xor di, di
    mov cx, 500
    rep movsw
    pop ds
    xor di, di
    mov ax, 0x1357
    mov cx, 300
    repe scasw
    WHY ne, 'STOSW differs'
    xor si, si
    mov di, 600
    mov cx, 200
    repe cmpsw
    WHY ne, 'MOVSW differs'
    clc
    ret

t_vga_backwards:            ; the direction flag, bytes, and overlapping in VGA memory
    mov ax, 0xa000
    mov es, ax
    std
    mov di, 0x8000 + 99
    mov si, 99
    mov cx, 100
    rep movsb
    cld
    mov di, 0x8000
    xor si, si
    mov cx, 100
    repe cmpsb
    WHY ne, 'MOVSB backwards'
    push ds
    mov ax, es
    mov ds, ax
    mov si, 0x8000
    mov di, 0x9000
    mov cx, 50
    rep movsw
    pop ds
    mov di, 0x9000
    xor si, si
    mov cx, 50
    repe cmpsw
    WHY ne, 'VGA to VGA'
    clc
    ret

t_vga_unreal:
    call go_big
    mov edi, 0xa4000
    mov eax, 0xdeadbeef
    mov ecx, 64
    a32 rep stosd
    mov esi, 0xa4000
    mov edi, 0x240000
    mov ecx, 64
    a32 rep movsd
    mov edi, 0x240000
    mov ecx, 64
    a32 repe scasd
    pushf
    mov dword [dword 0xa4004], 0x01020304
    mov edx, [dword 0xa4004]
    popf
    mov bx, cs
    mov ds, bx
    WHY ne, 'the copy differs'
    cmp edx, 0x01020304
    WHY ne, 'a dword at A4004'
    clc
    ret

t_vga_text:                 ; text mode: characters at B8000 through the odd/even planes
    mov ax, 3
    int 0x10
    mov ax, 0xb800
    mov es, ax
    xor di, di
    mov ax, 0x1f41
    mov cx, 80
    rep stosw
    mov word [es:10], 0x2e42
    cmp word [es:8], 0x1f41
    WHY ne, 'STOSW differs'
    cmp word [es:10], 0x2e42
    WHY ne, 'a word at B800A'
    clc
    ret

t_bios_tick:                ; the PIT's interrupt through the PIC wakes HLT
    mov ax, 0x40
    mov es, ax
    mov cx, 40
    mov ax, [es:0x6c]
.wait:
    hlt
    cmp [es:0x6c], ax
    jne .came
    loop .wait
    mov si, .text
    stc
    ret
.text db 'no tick in 40 wake-ups', 0
.came:
    clc
    ret

t_bios_disk:                ; the BIOS reads our boot sector again
    mov ax, 0x6000
    mov es, ax
    xor bx, bx
    mov ax, 0x0201
    mov cx, 1
    mov dx, 0x80
    int 0x13
    WHY c, 'int 13h failed'
    cmp word [es:510], 0xaa55
    WHY ne, 'no AA55'
    push ds
    xor ax, ax
    mov ds, ax
    mov si, 0x7c00
    xor di, di
    mov cx, 100
    repe cmpsb
    pop ds
    WHY ne, 'not the boot sector'
    clc
    ret

t_switch:                   ; to protected mode and back, 100 times
    mov cx, 100
.loop:
    push cx
    call go_big
    mov ax, cs
    mov ds, ax
    pop cx
    loop .loop
    clc
    ret

t_far_call:              ; CS base and a far call with another segment for the same place
    call 0x0fff:.far + 16
    cmp ax, 0x0fff
    WHY ne, 'CS in the far call'
    clc
    ret
.far:
    mov ax, cs
    retf

t_wrap:                     ; SP wraps from 0 to FFFE
    cli
    mov bp, sp
    xor sp, sp
    mov ax, 0x4321
    push ax
    mov cx, sp
    mov sp, bp
    sti
    cmp cx, 0xfffe
    WHY ne, 'SP after a push at 0'
    cmp word [0xfffe], 0x4321
    WHY ne, 'the pushed word'
    clc
    ret

t_op32:                     ; 32-bit operands and addresses in 16-bit code
    mov eax, 0xffffffff
    add eax, 1
    WHY nc, 'no carry'
    push dword 0x11223344
    pop ax
    pop dx
    cmp ax, 0x3344
    WHY ne, 'low half'
    cmp dx, 0x1122
    WHY ne, 'high half'
    mov eax, 0x1000
    lea ecx, [eax + eax * 4 + 5]
    cmp ecx, 0x5005
    WHY ne, 'LEA'
    clc
    ret

%assign count 0
%macro T 1
    dw t_%1, %%name
    %defstr name_ real_%1
[section .names]
%%name db name_, 0
__SECT__
    %assign count count + 1
%endmacro
tests:
    T flags
    T divide
    T int3
    T undefined
    T limit
    T stack_limit
    T idtr
    T step
    T unreal
    T unreal_string
    T unreal_exits
    T vga_graphics
    T vga_backwards
    T vga_unreal
    T vga_text
    T bios_tick
    T bios_disk
    T switch
    T far_call
    T wrap
    T op32
    dw 0
plan    db 'PLAN ', '0' + count / 10, '0' + count % 10, 10, 0
done    db 'DONE', 10, 0
pass    db 'PASS ', 0
fail    db 'FAIL ', 0
colon   db ': ', 0
newline db 10, 0
no_exception db 'no exception', 0
align 8
gdt dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr dw 23
     dd BASE + gdt
old_idtr dw 0, 0, 0
new_idtr dw 0x3ff
         dd 0x70000
current dw 0
saved_sp dw 0
then dw 0
resume dw 0
hooked dw 0
old_vector dw 0, 0
came db 0
caught_ip dw 0
caught_cs dw 0
caught_flags dw 0
