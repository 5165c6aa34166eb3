using Vmm.Vhost.Native;
using Vmm.Vhost.User.Backend;
using Vmm.Vhost.Virtqueue;

namespace Vmm.Devices.Backends.Console;

/// <summary>The queue with the guest's input. What it has no buffer for stays in the terminal.</summary>
/// <param name="terminal">Where it is typed.</param>
/// <param name="isUsed">Called whenever something was.</param>
internal sealed class ConsoleReceiveRing(TerminalMaster terminal, Action isUsed) : IRingHandler
{
    private const int ChunkSize = 4096;

    private readonly byte[] _chunk = new byte[ChunkSize];
    private int _start;
    private int _end;

    /// <inheritdoc/>
    public FileDescriptor? Ready => _start < _end ? null : terminal;

    /// <inheritdoc/>
    public void Process(BackendRing ring)
    {
        while (HasInput() && ring.TryTake(out DescriptorChain chain))
        {
            int count = chain.Write(0, _chunk.AsSpan(_start, _end - _start));
            _start += count;
            ring.Complete(chain.Head, (uint)count);
        }
        ring.Notify();
    }

    /// <inheritdoc/>
    public void Drain(BackendRing ring)
    {
    }

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private bool HasInput()
    {
        if (_start < _end)
            return true;
        int count = terminal.TryRead(_chunk);
        if (count <= 0)
            return false;
        (_start, _end) = (0, count);
        isUsed();
        return true;
    }
}
