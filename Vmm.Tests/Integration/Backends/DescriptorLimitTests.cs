using System.Net.Sockets;
using NUnit.Framework;
using Vmm.Devices.Backends.Vsock;
using Vmm.Tests.Fakes;
using Vmm.Tests.Integration.Linux.Devices;
using Vmm.Vhost.User.Protocol;

namespace Vmm.Tests.Integration.Backends;

/// <summary>Back-ends that cannot have another descriptor for a while, and serve on when they can.</summary>
public class DescriptorLimitTests : BackendTest
{
    private const int None = 3, Plenty = 1024;

    [Test]
    public void FrontEnd_ComesWhileThereAreNoDescriptors_IsServedLater()
    {
        VmmProcess process = StartBackend("rng");
        using (FrontEndDriver first = ConnectFrontEnd())
            first.Start().Dispose();
        Limit(process, None);
        FrontEndDriver second = ConnectFrontEnd();
        second.Send(VhostUserRequest.GetFeatures);
        process.WaitForErrors("rng: accept: Too many open files (errno 24): this process may have ");
        Assert.That(process.Errors, Does.Match(@"this process may have \d+ descriptors: raise the hard limit"), "it is confined, and may not ask for its limit any more");
        Limit(process, Plenty);
        Assert.That(second.Receive<ulong>(VhostUserRequest.GetFeatures), Is.Not.Zero);
    }

    [Test]
    public void Vsock_ProgramComesWhileThereAreNoDescriptors_IsConnectedLater()
    {
        string path = Path.Combine(Scratch, "vsock");
        VmmProcess process = StartBackend("vsock", "--uds-path", path);
        using FrontEndRing receive = ConnectFrontEnd().Start();
        Limit(process, None);
        using var program = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        program.Connect(new UnixDomainSocketEndPoint(path));
        program.Send("CONNECT 5000\n"u8);
        process.WaitForErrors("a program of the host's cannot be connected: accept: Too many open files");
        Limit(process, Plenty);
        // No connection ends meanwhile: there is none.
        receive.Add([], 1024);
        VsockHeader request = System.Runtime.InteropServices.MemoryMarshal.Read<VsockHeader>(receive.Take().Bytes);
        Assert.That((request.Operation, request.DestinationPort), Is.EqualTo((VsockOperation.Request, 5000u)));
    }

    private static void Limit(VmmProcess process, int descriptors) =>
        HostCommand.Run("prlimit", "--pid", $"{process.Id}", $"--nofile={descriptors}:");
}
