# Every usable range of the memory map has memory from its first to its last byte, and each range is other memory.

.include "payload.inc"

.equ PRESENT_WRITABLE, 3
.equ LARGE_PAGE, 1 << 7
.equ LARGE_PAGE_SHIFT, 21
.equ FIRST_TO_TOUCH, 0x100000       # below it are the tables this runs on; at it, this image

begin
    call write_marks
    call read_marks
    jmp power_off

# Writes to the last 8 bytes of each usable range their own address, and so to its first 8 above this image.
write_marks:
    mov $write_mark, %r8d
    jmp for_each_range

# Reads them all back.
read_marks:
    mov $read_mark, %r8d
    jmp for_each_range

write_mark:
    mov %rdi, (%rax)
    ret

read_mark:
    cmp %rdi, (%rax)
    jne 1f
    print_value "right at ", %rdi
    print "\n"
    ret
1:  print_value "wrong at ", %rdi
    print "\n"
    ret

# Calls R8 for each place with RDI = its physical address and RAX = where it is mapped.
for_each_range:
    mov boot_params, %rbx
    movzbl BP_E820_ENTRIES(%rbx), %ecx
    add $BP_E820_TABLE, %rbx
1:  jrcxz 4f
    cmpl $E820_USABLE, 16(%rbx)
    jne 3f
    cmpq $FIRST_TO_TOUCH, (%rbx)
    jb 3f
    je 2f
    mov (%rbx), %rdi
    call map
    call *%r8
2:  mov (%rbx), %rdi
    add 8(%rbx), %rdi
    sub $8, %rdi
    call map
    call *%r8
3:  add $E820_ENTRY_SIZE, %rbx
    dec %rcx
    jmp 1b
4:  ret

# Maps the 2 MiB around physical address RDI in the first entry of the 4 GiB to 5 GiB of virtual addresses, which the boot
# protocol's identity mapping leaves alone, and sets RAX to where RDI is in it.
map:
    push %rdx
    mov %rdi, %rax
    shr $LARGE_PAGE_SHIFT, %rax
    shl $LARGE_PAGE_SHIFT, %rax
    or $PRESENT_WRITABLE | LARGE_PAGE, %rax
    mov %rax, directory
    mov %cr3, %rax
    mov %rax, %rdx
    mov (%rdx), %rdx
    and $~0xfff, %rdx               # the page directory pointer table
    movq $directory + PRESENT_WRITABLE, 4 * 8(%rdx)
    mov %rax, %cr3                  # drops what the TLB knew
    mov %rdi, %rax
    and $(1 << LARGE_PAGE_SHIFT) - 1, %eax
    bts $32, %rax
    pop %rdx
    ret

    .bss
    .balign 4096
directory:
    .skip 4096
