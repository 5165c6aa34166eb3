using System.Runtime.InteropServices;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration;

/// <summary>Devices in other processes, before there is a driver.</summary>
public class VhostUserTests : KvmTest
{
    [TestCase("--disk", "socket=/nonexistent,timeout=50ms",
        "--disk: /nonexistent: no back-end within 0.05 s: nobody listens there: start the back-end, or is it another path?")]
    [TestCase("--fs", "tag=x,source=/nonexistent",
        "--fs tag=x: vmm backend fs ended with status 1: vmm: --shared-dir: /nonexistent is no directory: make it first, or give another")]
    [TestCase("--net", "socket=/nonexistent/socket,server=on",
        "--net: /nonexistent/socket: cannot listen on /nonexistent/socket: No such file or directory (errno 2): make its directory first, or give another path")]
    [TestCase("--vhost-user", "type=rng,fd=99",
        "--vhost-user type=rng: fd 99: fd 99 is no connected Unix stream socket: Invalid argument (errno 22): give the number of a socket that was opened for this process")]
    [TestCase("--vhost-user", "type=rng,fd=3",
        "--vhost-user: fd=3 was not inherited: vmm has opened a file of its own by that number: start vmm with the descriptor, and give its number")]
    public void Backend_NotThere_IsOneLineBeforeTheGuestBoots(string option, string value, string expected)
    {
        VmmResult result = Run("hello", option, value);
        Assert.That(result, Is.EqualTo(new VmmResult(1, "", $"vmm: {expected}\n")));
    }

    [TestCase(2, ",server=on")]
    [TestCase(15, "")]
    public void Signal_WhileABackendIsWaitedFor_EndsTheRun(int signal, string role)
    {
        // The first device is there when the second is waited for.
        string first = Path.Combine(Scratch, "first");
        using FakeBackend backend = new FakeBackend(first) { Config = new byte[60] }.Start();
        string second = Path.Combine(Scratch, "second");
        VmmProcess process = Start("hello", "--disk", $"socket={first}", "--vhost-user", $"type=rng,socket={second},timeout=600s{role}");
        Eventually.True(() => backend.Heard.Any(said => said.Request == VhostUserRequest.GetConfig), () => "the first back-end is not connected to");
        process.Signal(signal);
        Assert.That(process.WaitForEnd(), Is.EqualTo(new VmmResult(128 + signal, "", "")));
        Assert.That(File.Exists(second), Is.False);
    }

    [Test]
    public void Source_GuestThatEnds_LeavesNothingBehind()
    {
        if (!Environment.IsPrivilegedProcess || !File.Exists("/usr/lib/qemu/virtiofsd"))
            Assert.Ignore("virtiofsd is missing, or this is not root: install qemu-system-common");
        VmmResult result = Run("hello", "--fs", $"tag=x,source={Scratch}");
        Assert.That(result, Is.EqualTo(new VmmResult(0, "hello from the guest\n", "")));
        Assert.That(ProcFs.ProcessesWithEnvironment(VmmProcess.Mark), Is.Empty, "processes");
        Assert.That(Directory.GetFileSystemEntries(Temporary), Is.Empty);
    }

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
