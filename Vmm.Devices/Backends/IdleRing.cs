using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;

namespace Vmm.Devices.Backends;

/// <summary>A ring whose buffers are never used: those for events that do not happen here.</summary>
internal sealed class IdleRing : IRingHandler
{
    /// <summary>The only one there need be.</summary>
    public static readonly IdleRing Instance = new();

    private IdleRing()
    {
    }

    /// <inheritdoc/>
    public FileDescriptor? Ready => null;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
    }
}
