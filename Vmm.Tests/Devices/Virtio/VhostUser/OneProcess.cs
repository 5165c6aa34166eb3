using Vmm.Devices.Spawning;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Devices.Virtio.VhostUser;

/// <summary>A spawner whose only program is <paramref name="process"/>.</summary>
internal sealed class OneProcess(IStartedProcess process) : ISpawner
{
    public SpawnerSlot Add(SpawnerProgram program) => new(0, "/nowhere");

    public IStartedProcess Start(SpawnerSlot slot) => process;

    public void Remove(SpawnerSlot slot)
    {
    }

    public void AllowConnection(string path)
    {
    }

    public int TryConnect(string path, out UnixSocket? socket)
    {
        socket = null;
        return Errnos.Enoent;
    }

    public void RemoveAtEnd(string path)
    {
    }

    public void Close()
    {
    }

    public void Dispose() => process.Dispose();
}
