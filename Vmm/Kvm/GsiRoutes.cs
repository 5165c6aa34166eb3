using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Devices.Bus;

namespace Vmm.Kvm;

/// <summary>Which message KVM sends when an interrupt line pulses; none where a line has no route. Like the lines it outlives the VM:
/// each new one begins without routes.</summary>
/// <param name="count">Number of lines, GSI 0 to <paramref name="count"/> - 1.</param>
internal sealed class GsiRoutes(int count) : IInterruptRoutes
{
    private readonly InterruptMessage?[] _messages = new InterruptMessage?[count];
    private readonly byte[] _table = new byte[Unsafe.SizeOf<KvmIrqRouting>() + count * Unsafe.SizeOf<KvmIrqRoutingEntry>()];
    private KvmVm? _vm;

    /// <summary>From now on the routes are those of <paramref name="vm"/>, which has none yet.</summary>
    public void Bind(KvmVm vm)
    {
        _vm = vm;
        Array.Clear(_messages);
    }

    /// <inheritdoc/>
    public void Set(int input, InterruptMessage? message)
    {
        _messages[input] = message;
        Span<KvmIrqRoutingEntry> entries = MemoryMarshal.Cast<byte, KvmIrqRoutingEntry>(_table.AsSpan(Unsafe.SizeOf<KvmIrqRouting>()));
        int used = 0;
        for (int gsi = 0; gsi < _messages.Length; gsi++)
        {
            if (_messages[gsi] is { } routed)
            {
                entries[used++] = new KvmIrqRoutingEntry
                {
                    Gsi = (uint)gsi,
                    Type = KvmIrqRoutingEntry.Msi,
                    AddressLo = (uint)routed.Address,
                    AddressHi = (uint)(routed.Address >> 32),
                    Data = routed.Data,
                };
            }
        }
        MemoryMarshal.AsRef<KvmIrqRouting>(_table.AsSpan()).Nr = (uint)used;
        _vm?.SetRoutes(_table);
    }
}
