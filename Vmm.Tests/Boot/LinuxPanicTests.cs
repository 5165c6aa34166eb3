using NUnit.Framework;
using Vmm.Boot;
using Vmm.Vhost.Memory;

namespace Vmm.Tests.Boot;

public class LinuxPanicTests
{
    [TestCase("", true)]
    [TestCase("console=ttyS0 quiet panic=0", true)]
    [TestCase("reboot=t", true)]
    [TestCase("reboot=cold,acpi", true)]
    [TestCase("root=/dev/vda -- reboot=warm", true)]
    [TestCase("notreboot=warm", true)]
    [TestCase("reboot=warm", false)]
    [TestCase("quiet reboot=k,w", false)]
    [TestCase("quiet\treboot=panic_hard", false)]
    public void CanBeTold_OwnRebootParameters_OnlyWhereTheyLeaveTheFlagAlone(string commandLine, bool expected) =>
        Assert.That(LinuxPanic.CanBeTold(commandLine), Is.EqualTo(expected));

    [TestCase((ushort)0x1234, true)]
    [TestCase((ushort)0, false)]
    [TestCase((ushort)0x3412, false)]
    public void IsToldIn_Flag_IsTheOneOfAWarmStart(ushort flag, bool expected)
    {
        using GuestMemory memory = Guest.Memory();
        memory.Write(new GuestAddress(0x472), flag);

        Assert.That(LinuxPanic.IsToldIn(memory), Is.EqualTo(expected));
    }
}
