namespace Vmm.Machine;

/// <summary>Finds out that the guest has halted for good: every vCPU waits for an interrupt with interrupts off, as Linux
/// leaves them after "halt". With the interrupt controllers in the kernel no exit says so. Guests that use any processor
/// time are never disturbed.</summary>
internal sealed class HaltWatch(IReadOnlyList<VcpuThread> vcpus)
{
    private readonly long[] _used = new long[vcpus.Count];
    private bool _asked;

    /// <summary>To be called about once a second.</summary>
    /// <returns>Whether no vCPU can ever run again.</returns>
    public bool Tick()
    {
        if (_asked)
        {
            _asked = false;
            bool halted = true;
            foreach (VcpuThread vcpu in vcpus)
                halted &= vcpu.Halted;
            return halted;
        }
        bool idle = true;
        for (int i = 0; i < _used.Length; i++)
        {
            long now = vcpus[i].CpuTime;
            idle &= now == _used[i];
            _used[i] = now;
        }
        if (idle)
        {
            foreach (VcpuThread vcpu in vcpus)
                vcpu.AskHalted();
            _asked = true;
        }
        return false;
    }
}
