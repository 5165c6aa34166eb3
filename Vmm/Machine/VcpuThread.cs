using Vmm.Devices.Bus;
using Vmm.Kvm;
using Vmm.Vhost.Native;

namespace Vmm.Machine;

/// <summary>A vCPU and the thread it runs on: guest code, and between two exits the devices' register accesses.</summary>
internal sealed class VcpuThread : IDisposable
{
    private const int StackSize = 256 * 1024;
    private const int LongPause = 1000;     // milliseconds, of which the guest's watchdogs are told; they wait for several seconds

    private readonly KvmVcpu _vcpu;
    private readonly IoBus _ports;
    private readonly IoBus _mmio;
    private readonly IVcpuEvents _events;
    private readonly Action? _confine;
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _ready = new();
    private volatile int _threadId;   // 0 before the thread can be kicked and after it has ended
    private bool _isStarted;
    private volatile bool _stop;
    private volatile bool _askHalted;
    private volatile bool _wasPaused;
    private int _refusals;      // KVM_RUN said EAGAIN so often, one time after another
    private volatile bool _halted;

    /// <summary>Makes the thread, which does not run yet.</summary>
    /// <param name="index">The vCPU's number.</param>
    /// <param name="vcpu">The vCPU, which belongs to this object from now on.</param>
    /// <param name="ports">The devices' ports.</param>
    /// <param name="mmio">Their memory-mapped registers.</param>
    /// <param name="events">Where it is told what the vCPU cannot go on with.</param>
    /// <param name="confine">Confines the thread before it runs the guest; null where nothing does.</param>
    public VcpuThread(int index, KvmVcpu vcpu, IoBus ports, IoBus mmio, IVcpuEvents events, Action? confine = null)
    {
        Index = index;
        _vcpu = vcpu;
        _ports = ports;
        _mmio = mmio;
        _events = events;
        _confine = confine;
        _thread = new Thread(Main, StackSize) { Name = $"vcpu{index}", IsBackground = true };
    }

    /// <summary>Its number, which is its local APIC id.</summary>
    public int Index { get; }

    /// <summary>Whether files are mapped into the guest's memory (DAX): parts of them may be gone at any time.</summary>
    public bool SeesFiles { get; init; }

    /// <summary>The processor time used so far, in nanoseconds.</summary>
    public long CpuTime => NativeThread.CpuTime(_threadId);

    /// <summary>Whether the vCPU, when last asked by <see cref="AskHalted"/>, had halted for ever: it waits for an interrupt
    /// with interrupts off, or was never started.</summary>
    public bool Halted => _halted;

    /// <summary>Starts the thread, and returns once it can be kicked.</summary>
    public void Start()
    {
        try
        {
            NativeThread.Start(_thread);
        }
        catch (ErrnoException e)
        {
            throw new VmmException($"--cpus: {e.Message}", e);
        }
        _isStarted = true;
        _ready.Wait();
    }

    /// <summary>Asks the thread to end; at once if it is running guest code.</summary>
    public void RequestStop()
    {
        _stop = true;
        Kick();
    }

    /// <summary>Has the thread find out about <see cref="Halted"/>; the answer comes a moment later.</summary>
    public void AskHalted()
    {
        _halted = false;
        _askHalted = true;
        Kick();
    }

    /// <summary>Has the guest told, before it goes on, that the host had stopped it for a while.</summary>
    public void TellOfPause()
    {
        _wasPaused = true;
        Kick();
    }

    /// <summary>Waits until the thread has ended; not at all for one that the host refused to start.</summary>
    public void Join()
    {
        if (_isStarted)
            _thread.Join();
    }

    /// <summary>Frees the vCPU; after <see cref="Join"/>.</summary>
    public void Dispose()
    {
        _vcpu.Dispose();
        _ready.Dispose();
    }

    private void Kick()
    {
        // The flag stops a KVM_RUN that is about to begin, the signal one that has begun.
        _vcpu.RequestImmediateExit();
        int id = _threadId;
        if (id != 0)
            ThreadSignal.Send(id);
    }

    private void Main()
    {
        try
        {
            ThreadSignal.Block();
            _vcpu.AllowOnlySignal(ThreadSignal.Number);
            _confine?.Invoke();
            _threadId = NativeThread.CurrentId;
            _ready.Set();
            while (!_stop)
                RunOnce();
        }
        catch (Exception e)
        {
            // Nothing above this frame could report it; the machine must not go on with a vCPU missing.
            _ready.Set();
            _events.Failed(e);
        }
        finally
        {
            _threadId = 0;
        }
    }

    private void RunOnce()
    {
        int result = _vcpu.Run();
        if (result < 0)
        {
            if (result == -Errnos.Efault && SeesFiles)
            {
                WaitForMemory();
                return;
            }
            if (-result is not (Errnos.Eintr or Errnos.Eagain))
                throw Failure($"cannot run: {new ErrnoException("ioctl(KVM_RUN)", -result).Message}");
            if (result == -Errnos.Eagain)
                CheckRefusal();
            // Whoever stops the whole process (SIGSTOP) interrupts KVM_RUN, and sets no flag for it: this thread is the first to know.
            if (result == -Errnos.Eintr && _vcpu.State.ImmediateExit == 0)
                _wasPaused = true;
            Interrupted();
            return;
        }
        _refusals = 0;
        long left = Environment.TickCount64;
        HandleExit();
        // Whoever stops the process here, between two KVM_RUN, interrupts none.
        if (Environment.TickCount64 - left >= LongPause)
            _vcpu.TellOfPause();
    }

    private void HandleExit()
    {
        ref KvmRun exit = ref _vcpu.State;
        switch (exit.ExitReason)
        {
            case KvmExitReason.Io:
                PortAccess(in exit);
                break;
            case KvmExitReason.Mmio when exit.MmioIsWrite != 0:
                _mmio.Write(exit.MmioPhysAddr, _vcpu.MmioData);
                break;
            case KvmExitReason.Mmio:
                _mmio.Read(exit.MmioPhysAddr, _vcpu.MmioData);
                break;
            case KvmExitReason.Intr or KvmExitReason.IrqWindowOpen or KvmExitReason.Unknown when exit.HardwareReason == 0:
                break;
            case KvmExitReason.Shutdown:
                // A triple fault: the processor shuts down, and a PC's chipset resets it.
                _stop = true;
                _events.TripleFault(Index, VcpuReport.Place(_vcpu));
                break;
            case KvmExitReason.SystemEvent:
                _stop = true;
                _events.SystemEvent((KvmSystemEvent)exit.SystemEventType);
                break;
            default:
                throw Failure($"left the guest with {VcpuReport.Reason(in exit)}");
        }
    }

    // EAGAIN is what a vCPU gets that was woken by an INIT or a SIPI: the next KVM_RUN goes on. One that may run gets it, too, and then for ever, where KVM
    // is refused the thread that it starts for a VM (by a limit of threads, seen with Linux 6.18).
    private void CheckRefusal()
    {
        const int few = 3, most = 1000;     // milliseconds, after the few
        if (++_refusals <= few)
            return;
        if (_vcpu.GetMpState() != KvmMpState.Runnable)
            _refusals = 0;
        else if (_refusals > most)
            throw Failure($"cannot run: {NativeThread.Refused("of KVM").Message}");
        else
            ThreadSignal.Wait(milliseconds: 1);
    }

    // The guest has touched a page behind the end of a file that the host has made shorter, or one that it may only read, or none at all.
    // KVM does not say which page it was, so nothing can be put there. No exception of a PC tells the guest's kernel of it.
    // The vCPU tries again, as KVM itself does for a guest with asynchronous page faults. Interrupts arrive meanwhile: the guest goes on
    // with its other programs, and can kill the one that waits.
    private void WaitForMemory()
    {
        _events.Waits(Index);
        ThreadSignal.Wait(milliseconds: 1);
        Interrupted();
    }

    private VmmException Failure(string what) => new($"vCPU {Index} {what}") { Details = VcpuReport.Registers(_vcpu) };

    private void PortAccess(ref readonly KvmRun exit)
    {
        Span<byte> data = _vcpu.IoData;
        int size = exit.IoSize;
        for (; data.Length >= size; data = data[size..])   // string instructions bring several items, all for the same port
        {
            if (exit.IoDirection == KvmRun.IoOut)
                _ports.Write(exit.IoPort, data[..size]);
            else
                _ports.Read(exit.IoPort, data[..size]);
        }
    }

    private void Interrupted()
    {
        ThreadSignal.Consume();
        _vcpu.ClearImmediateExit();
        if (_wasPaused)
        {
            _wasPaused = false;
            _vcpu.TellOfPause();
        }
        if (_askHalted)
        {
            _askHalted = false;
            const ulong interruptsEnabled = 1 << 9;
            uint state = _vcpu.GetMpState();
            // A processor that waits for INIT or for the SIPI after it can only be started by another one.
            _halted = state is KvmMpState.Uninitialized or KvmMpState.InitReceived
                || (state == KvmMpState.Halted && (_vcpu.GetRegs().Rflags & interruptsEnabled) == 0);
        }
    }
}
