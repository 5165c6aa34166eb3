using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

[NonParallelizable]   // it changes a limit of the process
public sealed class NativeThreadTests
{
    private const ulong Addresses = 1UL << 46;      // far more than there is

    [Test]
    public void Refused_AddressesAreLimited_NamesThatLimitToo()
    {
        ulong before = ResourceLimit.Addresses.Current!.Value;
        try
        {
            Assert.That(ResourceLimit.Addresses.TrySet(Addresses));
            Assert.That(NativeThread.Refused("it").Message, Does.StartWith(
                $"cannot start the thread \"it\": Resource temporarily unavailable (errno 11): this process may use {Addresses} bytes of addresses (ulimit -v), of which each thread needs some for its stack; "
                + "this user may have "));
        }
        finally
        {
            ResourceLimit.Addresses.TrySet(before);
        }
        Assert.That(NativeThread.Refused("it").Message, Does.Contain("(errno 11): this user may have ").Or.Contain("bytes of addresses"));
    }
}
