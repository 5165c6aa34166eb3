# An instruction that KVM must emulate, because its operand is no memory, and that its emulator does not know: x87 arithmetic.
# In kernel mode that is KVM_EXIT_INTERNAL_ERROR on every KVM.

.include "payload.inc"

begin
    print "bad instruction\n"
    fninit
    mov $UNCLAIMED_MMIO, %ebx
    faddl (%rbx)
    print "went on\n"
    jmp power_off
