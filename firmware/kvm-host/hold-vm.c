// Keeps a virtual machine with one vCPU, which never runs, as long as the host is up: hold-vm
// With its first VM a kernel enables KVM on every processor and patches its own code (static keys: the scheduler's preempt
// notifiers, local APICs that are not enabled), with the last it does the reverse. QEMU, with a thread for each processor, now and
// then keeps its translation of a breakpoint that such a patch had in the code for a moment; that processor then traps without
// end, and whoever waits for it waits too. With a VM that stays there is nothing to patch.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    int system = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = system < 0 ? -1 : ioctl(system, KVM_CREATE_VM, 0);
    if (machine < 0 || ioctl(machine, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(machine, KVM_CREATE_VCPU, 0) < 0) {
        perror("hold-vm");
        return 1;
    }
    for (;;)
        pause();
}
