using NUnit.Framework;
using Vmm.Tests.Devices.Backends.FileSystem;
using Vmm.Tests.Integration.Backends;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Tests.Integration.Sandbox;

namespace Vmm.Tests.Integration.Linux;

// The tests of what a process of ours can still do, once more where Linux guests run. In the emulated KVM host that is Debian's kernel, which is older than that of
// most machines, and has other versions of Landlock and seccomp.

/// <summary>Back-ends.</summary>
[Category("Linux")]
public sealed class ConfinementOnDebianTests : ConfinementTests;

/// <summary>The back-end of directories.</summary>
[Category("Linux")]
public sealed class FileSystemConfinementOnDebianTests : FileSystemConfinementTests;

/// <summary>VMMs.</summary>
[Category("Linux")]
public sealed class SandboxOnDebianTests : SandboxTests
{
    [OneTimeSetUp]
    public void LoadModules()
    {
        if (LinuxHost.WhyNoLinux() is string reason)
            Assert.Ignore(reason);
        HostCommand.Run("modprobe", "-a", "vhost_net", "vhost_vsock", "tun");
    }
}

/// <summary>The process of one more command in a guest.</summary>
[Category("Linux")]
public sealed class AttachOnDebianTests : AttachTests;
