using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>A vCPU of KVM's. All calls but <see cref="RequestImmediateExit"/> belong to the thread that runs it.</summary>
internal sealed unsafe class KvmVcpu(FileDescriptor fd, MemoryMapping run) : IDisposable
{
    /// <summary>The page shared with KVM, which describes the last exit.</summary>
    // SAFETY: KVM maps at least sizeof(struct kvm_run) bytes, and the mapping lives as long as this object.
    public ref KvmRun State => ref *(KvmRun*)run.Pointer;

    /// <summary>Runs guest code until an exit that user space must handle, or a signal.</summary>
    /// <returns>0, or a negated error number: -EINTR after a signal or <see cref="RequestImmediateExit"/>.</returns>
    public int Run() => Ioctl.CallOnce(fd, KvmIoctls.Run);

    /// <summary>The data of a port I/O exit: count times size bytes.</summary>
    public Span<byte> IoData =>
        // SAFETY: offset, size and count were written by KVM and lie inside the mapping (api.rst, "KVM_EXIT_IO").
        new(run.Pointer + State.IoDataOffset, State.IoSize * (int)State.IoCount);

    /// <summary>The data of an MMIO exit: 1 to 8 bytes.</summary>
    public Span<byte> MmioData =>
        // SAFETY: the field is 8 bytes long.
        new(Unsafe.AsPointer(ref State.MmioData), (int)Math.Min(State.MmioLength, sizeof(ulong)));

    /// <summary>Makes the next, or the present, <see cref="Run"/> return; from any thread, together with a signal for the present one.</summary>
    public void RequestImmediateExit() => Volatile.Write(ref State.ImmediateExit, 1);

    /// <summary>Withdraws <see cref="RequestImmediateExit"/>.</summary>
    public void ClearImmediateExit() => Volatile.Write(ref State.ImmediateExit, 0);

    /// <summary>Lets only signal <paramref name="number"/> interrupt <see cref="Run"/>; all others stay blocked there.</summary>
    public void AllowOnlySignal(int number)
    {
        var mask = new KvmSignalMask { Length = sizeof(ulong), Set = ~(1UL << (number - 1)) };
        Ioctl.Call(fd, KvmIoctls.SetSignalMask, ref mask);
    }

    /// <summary>Tells the guest's kernel that it was stopped for a while, so that its watchdogs do not take that for a hang (api.rst, 4.74). A
    /// guest without kvmclock cannot be told.</summary>
    public void TellOfPause() => _ = Ioctl.TryCall(fd, KvmIoctls.KvmclockCtrl);

    public KvmRegs GetRegs() => Get<KvmRegs>(KvmIoctls.GetRegs);

    public void SetRegs(KvmRegs regs) => Ioctl.Call(fd, KvmIoctls.SetRegs, ref regs);

    public KvmSregs GetSregs() => Get<KvmSregs>(KvmIoctls.GetSregs);

    public void SetSregs(KvmSregs sregs) => Ioctl.Call(fd, KvmIoctls.SetSregs, ref sregs);

    public void SetFpu(KvmFpu fpu) => Ioctl.Call(fd, KvmIoctls.SetFpu, ref fpu);

    public KvmLapicState GetLapic() => Get<KvmLapicState>(KvmIoctls.GetLapic);

    public void SetLapic(KvmLapicState lapic) => Ioctl.Call(fd, KvmIoctls.SetLapic, ref lapic);

    /// <summary>KVM_MP_STATE_*: running, halted, waiting for a start-up interrupt.</summary>
    public uint GetMpState() => Get<KvmMpState>(KvmIoctls.GetMpState).State;

    /// <summary>The frequency of the guest's TSC in kHz, as KVM knows it; 0 where it does not, or where the call is not known (api.rst, 4.56).</summary>
    public uint GetTscKilohertz() => (uint)Math.Max(Ioctl.CallOnce(fd, KvmIoctls.GetTscKhz), 0);

    /// <summary>A model-specific register.</summary>
    /// <returns>Null where this host's KVM does not have it.</returns>
    public ulong? GetMsr(uint index)
    {
        Span<byte> buffer = Compose(new KvmMsrs { Count = 1 }, [new KvmMsrEntry(index, 0)]);
        return Ioctl.Call(fd, KvmIoctls.GetMsrs, buffer) == 1 ? MemoryMarshal.Read<KvmMsrEntry>(buffer[sizeof(KvmMsrs)..]).Data : null;
    }

    /// <summary>Sets model-specific registers.</summary>
    /// <returns>How many were set, from the first; the next one was refused.</returns>
    public int SetMsrs(ReadOnlySpan<KvmMsrEntry> msrs)
    {
        Span<byte> buffer = Compose(new KvmMsrs { Count = (uint)msrs.Length }, msrs);
        return Ioctl.Call(fd, KvmIoctls.SetMsrs, buffer);
    }

    /// <summary>Sets what CPUID answers.</summary>
    public void SetCpuid(ReadOnlySpan<KvmCpuidEntry2> entries)
    {
        Span<byte> buffer = Compose(new KvmCpuid2 { Count = (uint)entries.Length }, entries);
        Ioctl.Call(fd, KvmIoctls.SetCpuid2, buffer);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        run.Dispose();
        fd.Dispose();
    }

    private T Get<T>(in IoctlRequest request)
        where T : unmanaged
    {
        T value = default;
        Ioctl.Call(fd, request, ref value);
        return value;
    }

    private static Span<byte> Compose<THead, TEntry>(THead head, ReadOnlySpan<TEntry> entries)
        where THead : unmanaged
        where TEntry : unmanaged
    {
        byte[] buffer = new byte[sizeof(THead) + entries.Length * sizeof(TEntry)];
        MemoryMarshal.Write(buffer, in head);
        MemoryMarshal.AsBytes(entries).CopyTo(buffer.AsSpan(sizeof(THead)));
        return buffer;
    }
}
