using System.Diagnostics;
using NLog;
using Vmm.Boot;
using Vmm.Cpu;
using Vmm.Devices.Platform;
using Vmm.Devices.Virtio;
using Vmm.Kvm;
using Vmm.Sandbox;
using Vmm.Serial;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Machine;

/// <summary>A virtual machine: guest memory, buses, devices and the console, which outlive a reset of the guest.</summary>
internal sealed class VirtualMachine : IMachineEvents, IVcpuEvents, IDisposable
{
    private static readonly BoundedLog s_log = new("Vmm.Machine");
    private static readonly TimeSpan s_haltInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_quitPatience = TimeSpan.FromSeconds(1);

    private readonly MachineConfig _config;
    private readonly MachineSandbox? _sandbox;
    private readonly KvmSystem _kvm;
    private readonly KernelFiles _kernel;
    private readonly bool _tellsPanics;
    private GuestMemory _memory;
    private readonly PlatformDevices _platform;
    private readonly VirtioSlots _slots;
    private readonly MachineEndLatch _end = new();
    private readonly Lock _cycleLock = new();   // held to kick vCPUs, so that they are not freed meanwhile
    private readonly RestartWatch _restarts = new();
    private PowerCycle? _cycle;
    private readonly CancellationTokenSource _ending = new();   // the run ends by a signal, or by Ctrl-A x: nobody waits for back-ends, or for memory, any more
    private readonly ShutdownTimer _shutdown;
    private bool _warnedOfTripleFault;
    private volatile bool _hasTripleFaulted;    // in this power cycle
    private int _crashKernelRuns;               // 1: in this power cycle
    private int _warnedOfMissingFile;
    private bool _isHeld;   // no vCPU will run any more
    private int _isSuspending;
    private int _isQuitting;

    /// <summary>Opens what the host gives: KVM, guest memory, the console, the devices' back-ends. Nothing runs yet.</summary>
    /// <param name="config">What to build.</param>
    /// <param name="sandbox">What <see cref="Run"/> confines the process by; null to leave it as it is.</param>
    /// <param name="cancellation">Ends the waits of this constructor.</param>
    /// <exception cref="VmmException">The host cannot give it; the message says why.</exception>
    /// <exception cref="Vhost.VhostException">A device cannot have its back-end; the message says why.</exception>
    /// <exception cref="OperationCanceledException">A back-end was waited for when <paramref name="cancellation"/> came.</exception>
    public VirtualMachine(MachineConfig config, MachineSandbox? sandbox = null, CancellationToken cancellation = default)
    {
        (_config, _sandbox) = (config, sandbox);
        // Later a signal need not be the end: the guest may be asked to power off first, and needs its devices for that.
        using CancellationTokenRegistration opening = cancellation.UnsafeRegister(_ => _ending.Cancel(), null);
        _shutdown = new ShutdownTimer(config.ShutdownTimeout, Stop);
        _kvm = new KvmSystem();
        try
        {
            if (config.Cpu.Amx)
                AmxPermission.Ask();
            HostLimits.Check(config, _kvm);
            _kernel = KernelFiles.Open(config.Kernel, sandbox is null ? null : MachineSandbox.WorkConfined);
            _tellsPanics = PowerCycle.TellsPanics(config, _kernel);
            if (_kernel.IsLinux && !_tellsPanics)
                s_log.Warn("--cmdline: its reboot= leaves the guest no way to tell of a panic before its pvpanic driver is loaded: it will look like a reboot");
            _memory = CreateMemory(config, _ending.Token);
            _platform = new PlatformDevices(config, _kvm, this, quit: Quit);
            if (sandbox is not null && config.Serial is { Kind: SerialKind.Socket, Path: { } socket })
                sandbox.Spawner.RemoveAtEnd(socket);
            _slots = new VirtioSlots(DevicesOf(config, sandbox), _memory, _platform.Mmio, _kvm, _ending.Token);
        }
        catch
        {
            _platform?.Dispose();
            _memory?.Dispose();
            _kernel?.Dispose();
            _kvm.Dispose();
            throw;
        }
    }

    /// <summary>When the guest was last started, a timestamp of <see cref="Stopwatch"/>; 0 before.</summary>
    public long Started { get; private set; }

    /// <summary>Confines the process, and runs the guest until it ends or <see cref="Stop"/> is called, restarting it as configured.</summary>
    /// <exception cref="VmmException">The guest could not be started or could not go on.</exception>
    public MachineEnd Run()
    {
        try
        {
            return RunToItsEnd();
        }
        catch (OperationCanceledException) when (_end.ByHost is { Kind: MachineEndKind.Quit } quit)
        {
            return quit;    // while the guest restarted
        }
    }

    private MachineEnd RunToItsEnd()
    {
        _sandbox?.Close(_config.Serial.Kind, _slots.DriverCalls, _slots.EventCalls);
        _platform.StartConsole();
        while (true)
        {
            MachineEnd end = RunOnce(out TimeSpan ran, out bool wasSilent);
            if (end.Kind == MachineEndKind.Reset && _tellsPanics && LinuxPanic.IsToldIn(_memory))
            {
                s_log.Warn("the guest's kernel panicked, and reset");
                end = new MachineEnd(MachineEndKind.Panic);
            }
            if (end.Kind is MachineEndKind.Reset or MachineEndKind.PowerOff && Volatile.Read(ref _crashKernelRuns) != 0)
            {
                s_log.Warn("the crash kernel of the guest, which panicked, has ended");
                end = new MachineEnd(MachineEndKind.Panic);
            }
            if (end.Kind == MachineEndKind.Reset && _config.OnReboot == RebootAction.Exit && wasSilent && _hasTripleFaulted)
                end = new MachineEnd(MachineEndKind.EarlyFault);
            switch (end.Kind)
            {
                case MachineEndKind.Failure:
                    throw end.Failure as VmmException ?? new VmmException($"a vCPU thread failed: {end.Failure?.Message}", end.Failure);
                case MachineEndKind.Reset when _shutdown.Begun is { } asked:
                    return asked;   // it was asked to power off, and is not started again
                case MachineEndKind.Reset when _config.OnReboot == RebootAction.Restart:
                    if (_restarts.IsStuck(ran, Done))
                        return new MachineEnd(MachineEndKind.ResetLoop);
                    s_log.Info("the guest restarts");
                    EndCycle();
                    if (_shutdown.Begun is { } late)
                        return late;    // the button was pressed after the guest had reset: it did not hear of it
                    _slots.Reset();
                    _platform.Reset();
                    RenewMemory();
                    _end.ForgetGuest();
                    GC.Collect();   // left to itself the heap would grow by some kilobytes with each restart, up to 16 MiB
                    break;
                case MachineEndKind.Panic when _config.OnPanic == PanicAction.Halt:
                    s_log.Warn("the guest is held as it panicked: end the VMM by a signal or Ctrl-A x");
                    lock (_cycleLock)
                        _isHeld = true;
                    _end.ForgetGuest();
                    MachineEnd? last = _end.Wait(Timeout.InfiniteTimeSpan);
                    return last?.Kind == MachineEndKind.Signal ? last : end;
                default:
                    return end;
            }
        }
    }

    /// <summary>Ends the run by <paramref name="signal"/>, as configured: at once, or by the guest's power button first; from any thread, at any
    /// time.</summary>
    public void Signal(int signal)
    {
        lock (_cycleLock)
        {
            if (CanHearPowerButton && _shutdown.TryBegin(signal))
            {
                s_log.Info("the power button is pressed: the guest has {Seconds} s to power off", _config.ShutdownTimeout.TotalSeconds);
                _platform.PressPowerButton();
                return;
            }
        }
        Stop(new MachineEnd(MachineEndKind.Signal, signal));
    }

    /// <summary>Presses the guest's power button; from any thread, at any time.</summary>
    public void PressPowerButton()
    {
        lock (_cycleLock)
        {
            if (CanHearPowerButton)
                _platform.PressPowerButton();
        }
    }

    /// <summary>Stops the whole process as a shell's job, and returns when it is continued; the terminal is as it was before meanwhile.</summary>
    public void Suspend()
    {
        if (Interlocked.Exchange(ref _isSuspending, 1) != 0)
            return;     // it is about to stop already
        _platform.SuspendConsole();
        ProcessStop.Now();
        Resume();
        Volatile.Write(ref _isSuspending, 0);
    }

    /// <summary>The process was stopped and goes on: the terminal is taken up again, and the guest told that time has passed.</summary>
    public void Resume()
    {
        _platform.ResumeConsole();
        lock (_cycleLock)
            _cycle?.TellOfPause();
    }

    /// <summary>Ends the run from outside the guest; from any thread, at any time.</summary>
    public void Stop(MachineEnd end)
    {
        _end.SetByHost(end);
        if (end.Kind == MachineEndKind.Signal)
            _ending.Cancel();
        StopVcpus();
    }

    // Ctrl-A x. The back-ends have a moment to complete what the guest has asked for last. One that does not holds the user up no longer than that, and who types it again does not want
    // to wait at all.
    private void Quit()
    {
        Stop(new MachineEnd(MachineEndKind.Quit));
        if (Interlocked.Exchange(ref _isQuitting, 1) == 0)
            _ending.CancelAfter(s_quitPatience);
        else
            _ending.Cancel();
    }

    /// <inheritdoc/>
    public void Raise(MachineEvent machineEvent)
    {
        if (machineEvent == MachineEvent.CrashKernel)
        {
            // Once in a power cycle: the guest could say it for ever.
            if (Interlocked.Exchange(ref _crashKernelRuns, 1) == 0)
                s_log.Warn("the guest's kernel panicked; its crash kernel takes over");
            return;
        }
        if (machineEvent == MachineEvent.Panic)
            s_log.Warn("the guest's kernel panicked");
        EndByGuest(new MachineEnd(machineEvent switch
        {
            MachineEvent.PowerOff => MachineEndKind.PowerOff,
            MachineEvent.Reset => MachineEndKind.Reset,
            _ => MachineEndKind.Panic,
        }));
    }

    /// <inheritdoc/>
    public void TripleFault(int index, string place)
    {
        // Each restart may bring another: the first one is told.
        s_log.Log(_warnedOfTripleFault ? LogLevel.Info : LogLevel.Warn, "vCPU {Index} shut down by a triple fault at {Place}: the guest resets", index, place);
        _warnedOfTripleFault = _hasTripleFaulted = true;
        EndByGuest(new MachineEnd(MachineEndKind.Reset));
    }

    /// <inheritdoc/>
    public void Waits(int index)
    {
        // On one vCPU after another, and as often as somebody changes the file: the first one is told.
        if (Interlocked.Exchange(ref _warnedOfMissingFile, 1) == 0)
        {
            s_log.Warn("vCPU {Index} waits: the guest touches a part of a file (dax=on) that the host has cut off, or that it may not write to, or where no file is. It goes on when the file is as long as before; a program of the guest's that waits so can be killed there",
                index);
        }
    }

    /// <inheritdoc/>
    public void SystemEvent(KvmSystemEvent systemEvent) => EndByGuest(new MachineEnd(systemEvent switch
    {
        KvmSystemEvent.Shutdown => MachineEndKind.PowerOff,
        KvmSystemEvent.Reset => MachineEndKind.Reset,
        _ => MachineEndKind.Panic,
    }));

    /// <inheritdoc/>
    public void Failed(Exception reason) => EndByGuest(new MachineEnd(MachineEndKind.Failure, Failure: reason));

    /// <summary>Frees everything; what the guest has sent to the console is written out, and the terminal restored.</summary>
    public void Dispose()
    {
        lock (_cycleLock)
            _isHeld = true;
        // To destroy a VM is mostly to wait for grace periods of the kernel's: the rest is done meanwhile.
        var destroyer = new Thread(EndCycle, maxStackSize: 64 * 1024) { Name = "vm destroyer" };
        bool isApart = true;
        try
        {
            NativeThread.Start(destroyer);
        }
        catch (ErrnoException)
        {
            isApart = false;    // it only takes longer
            EndCycle();
        }
        _shutdown.Dispose();
        _slots.Dispose();
        _platform.Dispose();
        _memory.Dispose();
        _kernel.Dispose();
        if (isApart)
            destroyer.Join();
        _kvm.Dispose();
    }

    private static IReadOnlyList<VirtioDeviceOptions> DevicesOf(MachineConfig config, MachineSandbox? sandbox) =>
        sandbox is null ? config.Devices : [.. config.Devices.Select(device => device.With(() => sandbox.Spawner))];

    // How long the guest ran does not include how long its VM took to make.
    // Silent is a guest that has neither said nor done anything.
    private MachineEnd RunOnce(out TimeSpan ran, out bool wasSilent)
    {
        (_hasTripleFaulted, _crashKernelRuns) = (false, 0);
        PowerCycle cycle = PowerCycle.Prepare(_kvm, _config, _kernel, _memory, _platform, _slots, this, _sandbox is null ? null : _sandbox.ConfineVcpu);
        lock (_cycleLock)
            _cycle = cycle;
        try
        {
            long start = Started = Stopwatch.GetTimestamp();
            (long, long) before = Done;
            cycle.Start();
            BackEarlyMemory();
            var haltWatch = new HaltWatch(cycle.Vcpus);
            MachineEnd? end;
            while ((end = _end.Wait(s_haltInterval)) is null)
            {
                if (haltWatch.Tick())
                {
                    s_log.Info("the guest has halted");
                    _end.SetByGuest(new MachineEnd(Done == before ? MachineEndKind.EarlyHalt : MachineEndKind.PowerOff));
                }
            }
            ran = Stopwatch.GetElapsedTime(start);
            wasSilent = Done == before;
            return end;
        }
        finally
        {
            StopVcpus();
            cycle.Join();
        }
    }

    // While the guest begins, so that it need not wait for it. Huge pages that the user has asked for, and pages that are there already, stay as they are.
    private void BackEarlyMemory()
    {
        const int patience = 3;     // a host without free huge pages looks for them for long, and a page that somebody holds at the moment says nothing of the next
        if (!_kernel.IsLinux || _config.Memory.HugePageSize != 0 || _config.Memory.Prefault || KernelParameters.LimitsMemory(_config.Kernel.CommandLine))
            return;
        int failures = 0;
        foreach (GuestAddress address in EarlyMemory.HugePagesOf(_memory.Regions))
        {
            if (_end.Wait(TimeSpan.Zero) is not null || (!_memory.TryUseHugePages(address, 1) && ++failures == patience))
                return;
        }
    }

    private static GuestMemory CreateMemory(MachineConfig config, CancellationToken cancellation)
    {
        try
        {
            return GuestMemory.Create(AddressMap.RamRanges(config.MemorySize), config.Memory, cancellation);
        }
        catch (GuestMemoryException e)
        {
            throw LackOfMemory(e);
        }
    }

    private static VmmException LackOfMemory(GuestMemoryException e) => new($"--memory: {e.Message}", e);

    // All devices were reset, and no vCPU runs.
    private void RenewMemory()
    {
        if (!_slots.MayWriteToMemory)
        {
            try
            {
                _memory.Clear(_ending.Token);
            }
            catch (GuestMemoryException e)
            {
                throw LackOfMemory(e);
            }
            return;
        }
        s_log.Warn("a back-end that did not stop may still write to the guest's memory: it keeps that, and the guest gets other memory");
        _memory.Discard();
        _memory.Dispose();
        _memory = CreateMemory(_config, _ending.Token);
        _slots.Reset(_memory);
    }

    // What the guest has said and done in all its starts: bytes on the serial port, and devices that its drivers have started. A guest with another
    // console than the serial port does the latter.
    private (long Output, long Starts) Done => (_platform.SerialOutput, _slots.Starts);

    // Under the lock: not before the guest runs, while it is held after a panic, or when the devices are about to go.
    private bool CanHearPowerButton => _cycle is not null && !_isHeld;

    private void EndCycle()
    {
        lock (_cycleLock)
        {
            _cycle?.Dispose();
            _cycle = null;
        }
    }

    private void EndByGuest(MachineEnd end)
    {
        _end.SetByGuest(end);
        StopVcpus();
    }

    private void StopVcpus()
    {
        lock (_cycleLock)
            _cycle?.RequestStop();
    }
}
