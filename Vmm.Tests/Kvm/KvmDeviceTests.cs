using NUnit.Framework;
using Vmm.Kvm;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Kvm;

public sealed class KvmDeviceTests
{
    [TestCase(Errnos.Ebusy, "another hypervisor uses the processor's virtualisation: stop it")]
    [TestCase(Errnos.Enomem, "the kernel's log (dmesg) may say more")]
    [TestCase(Errnos.Emfile, "or LimitNOFILE= of systemd)")]
    public void Explain_Refusal_EndsWithWhatToDo(int errno, string advice)
    {
        var refusal = new ErrnoException("ioctl(KVM_CREATE_VM)", errno);
        Assert.That(KvmDevice.Explain(refusal), Does.StartWith(refusal.Message).And.EndsWith(advice));
    }
}
