using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration;

/// <summary>A device whose back-end shares memory with the guest.</summary>
public class SharedMemoryTests : KvmTest
{
    [TestCase(1UL << 30, 0, "")]
    [TestCase(1UL << 42, 1, "it must be whole pages, at most 64G\n")]
    public void Window_OfADaemon_IsPlacedAboveMemory(ulong size, int status, string error)
    {
        string path = Path.Combine(Scratch, "fs");
        using FakeBackend backend = new FakeBackend(path)
        {
            Config = new byte[40],
            Script = (message, connection) =>
            {
                if ((VhostUserRequest)message.Header.Request != VhostUserRequest.GetShmemConfig)
                    return false;
                byte[] sizes = new byte[PayloadSize.ShmemConfig];
                sizes[0] = 1;
                MemoryMarshal.Write(sizes.AsSpan(8), in size);
                connection.Send(message.Header.Request, VhostUserFlags.Reply, sizes, [], TimeSpan.FromSeconds(5));
                return true;
            },
        }.Start();
        VmmResult result = Run("hello", "--fs", $"tag=x,socket={path},dax=on");
        Assert.That(result.ExitCode, Is.EqualTo(status), result.Summary);
        Assert.That(result.Errors, status == 0 ? Is.Empty : Does.EndWith(error));
    }
}
