using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration.Backends;

/// <summary>A test of <c>vmm backend</c>.</summary>
public abstract class BackendTest : VmmTest
{
    private protected string SocketPath => Path.Combine(Scratch, "backend.sock");

    /// <summary>Starts a back-end on <see cref="SocketPath"/>, and waits until it listens there.</summary>
    private protected VmmProcess StartBackend(string device, params string[] options)
    {
        VmmProcess process = StartVmm(["backend", device, "--socket-path", SocketPath, .. options]);
        using UnixSocket? socket = ConnectWhenReady(process);
        return process;
    }

    /// <summary>A front-end that is connected.</summary>
    private protected FrontEndDriver ConnectFrontEnd() => Keep(new FrontEndDriver(UnixSocket.Connect(SocketPath)));

    private UnixSocket? ConnectWhenReady(VmmProcess process)
    {
        UnixSocket? socket = null;
        Eventually.True(
            () => UnixSocket.TryConnect(SocketPath, out socket) == 0 || process.EndsWithin(TimeSpan.Zero),
            () => "the back-end does not listen");
        if (socket is null)
            Assert.Fail($"the back-end ended: {process.WaitForEnd().Summary}");
        return socket;
    }
}
