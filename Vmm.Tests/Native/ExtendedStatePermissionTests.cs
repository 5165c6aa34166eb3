using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class ExtendedStatePermissionTests
{
    [Test]
    public void Constants_AgainstTheHeaders_AreTheSame() => CCompiler.Check($"""
        #include <asm/prctl.h>
        #include <sys/syscall.h>
        _Static_assert(SYS_arch_prctl == {ExtendedStatePermission.ArchPrctl}, "SYS_arch_prctl");
        #ifdef ARCH_REQ_XCOMP_GUEST_PERM
        _Static_assert(ARCH_REQ_XCOMP_GUEST_PERM == {ExtendedStatePermission.RequestForGuests}, "ARCH_REQ_XCOMP_GUEST_PERM");
        #endif
        """);

    // No processor has a component of that number.
    [Test]
    public void AskForGuests_ComponentThatThereIsNot_Fails() =>
        Assert.That(() => ExtendedStatePermission.AskForGuests(62), Throws.TypeOf<ErrnoException>().With.Message.Contains("ARCH_REQ_XCOMP_GUEST_PERM"));
}
