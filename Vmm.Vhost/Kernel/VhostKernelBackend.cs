using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Vhost.Kernel;

/// <summary>A data plane in the host kernel (linux/vhost.h): what all its devices have in common.</summary>
public abstract class VhostKernelBackend : IVhostBackend
{
    /// <summary>The system calls that every such back-end makes once it is open.</summary>
    public static readonly IReadOnlyList<SystemCallRule> CommonSystemCalls =
    [
        SystemCallRule.Requests(
            VhostIoctls.SetFeatures, VhostIoctls.SetMemTable, VhostIoctls.SetVringNum, VhostIoctls.SetVringAddr, VhostIoctls.SetVringBase,
            VhostIoctls.GetVringBase, VhostIoctls.SetVringKick, VhostIoctls.SetVringCall, VhostIoctls.SetVringErr),
    ];

    private const byte ForkAsTask = 1;   // VHOST_FORK_OWNER_TASK

    private static readonly BoundedLog s_log = new("Vmm.Vhost.Kernel");

    private readonly Ring[] _rings;
    private ulong? _acceptedFeatures;
    private bool _startFailed;
    private bool _isDisposed;

    /// <summary>Opens the device and becomes its owner.</summary>
    /// <param name="path">The device node.</param>
    /// <param name="module">The kernel module that makes the node.</param>
    /// <param name="ringCount">How many rings it works.</param>
    /// <exception cref="VhostException">The device is not there, not ours, or no vhost device; nothing is left open.</exception>
    private protected VhostKernelBackend(string path, string module, int ringCount)
    {
        ArgumentNullException.ThrowIfNull(path);
        Name = path;
        _rings = new Ring[ringCount];
        Device = Open(path, module);
        try
        {
            ulong offered = 0;
            Call(VhostIoctls.GetFeatures, ref offered, "it is no vhost device");
            OfferedFeatures = offered;
            // Workers that belong to this process, to its cgroups and limits: before SET_OWNER, from Linux 6.17 on, and the default there.
            byte mode = ForkAsTask;
            TryCall(VhostIoctls.SetForkFromOwner, ref mode);
            Call(VhostIoctls.SetOwner, "another process owns this descriptor");
        }
        catch
        {
            Device.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public string Name { get; }

    /// <inheritdoc/>
    public virtual ulong Features => OfferedFeatures & ~HiddenFeatures;

    /// <inheritdoc/>
    public virtual int RingCount => _rings.Length;

    /// <summary>The system calls that this one makes once it is open, besides <see cref="CommonSystemCalls"/>: for a process that confines
    /// itself.</summary>
    public abstract IReadOnlyList<SystemCallRule> SystemCalls { get; }

    /// <summary>The device node.</summary>
    private protected FileDescriptor Device { get; }

    /// <summary>What the kernel offers, with vhost's own bits.</summary>
    private protected ulong OfferedFeatures { get; }

    /// <summary>Bits that a driver must not see: vhost's own meanings, and what only legacy devices have.</summary>
    private protected virtual ulong HiddenFeatures => VirtioFeatures.Hidden;

    /// <summary>Whether rings run only all together, so that stopping one stops the others too.</summary>
    private protected virtual bool RunsAsWhole => false;

    /// <summary>The memory that was set last.</summary>
    private protected GuestMemory? Memory { get; private set; }

    /// <inheritdoc/>
    public void SetFeatures(ulong features)
    {
        ThrowIfDisposed();
        VirtioFeatures.CheckAccepted(features, Features, Name);
        _acceptedFeatures = null;   // where these are refused, there are none
        ApplyFeatures(features);
        _acceptedFeatures = features;
    }

    /// <inheritdoc/>
    public void SetMemory(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ThrowIfDisposed();
        Memory = memory;
        ApplyMemory(memory);
    }

    /// <inheritdoc/>
    public void Start(ReadOnlySpan<VringConfig> rings)
    {
        ThrowIfDisposed();
        if (_acceptedFeatures is not ulong features)
            throw new VhostException($"{Name}: has no features yet");
        if (Memory is not GuestMemory memory)
            throw new VhostException($"{Name}: has no memory yet");
        var starting = new List<VringConfig>();
        foreach (ref readonly VringConfig ring in rings)
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)ring.Index, (uint)_rings.Length, nameof(rings));
            if (!_rings[ring.Index].Runs)
                starting.Add(ring);
        }
        if (starting.Count == 0)
            return;
        if (RunsAsWhole && Array.Exists(_rings, ring => ring.Runs))
            throw new VhostException($"{Name}: rings can only be started all at once");
        bool running = false;
        try
        {
            Prepare(features, memory);
            foreach (VringConfig ring in starting)
                Configure(in ring);
            foreach (VringConfig ring in starting)
                _rings[ring.Index] = new Ring(Runs: true, ring.Base);
            running = true;
            Run(starting);
            // What was kicked before a ring ran may have gone unseen.
            foreach (VringConfig ring in starting)
                ring.Kick.Signal();
        }
        catch (Exception e)
        {
            _startFailed = true;
            foreach (VringConfig ring in starting)
            {
                if (running)
                    Stop(ring.Index);
                else
                    Unbind(ring.Index);
                _rings[ring.Index] = new Ring(Runs: false, ring.Base);
            }
            Release();
            _startFailed = false;
            if (e is GuestMemoryException)
                throw new VhostException($"{Name}: {e.Message}", e);
            throw;
        }
    }

    /// <inheritdoc/>
    public virtual void StopAll()
    {
        ThrowIfDisposed();
        for (int i = 0; i < _rings.Length; i++)
            Stop(i);
    }

    /// <inheritdoc/>
    /// <remarks>Never: the kernel says that a ring has stopped when all that was taken from it is done, and a device that it cannot stop is
    /// closed, which stops it.</remarks>
    public bool MayWrite(GuestMemory memory)
    {
        ThrowIfDisposed();
        return false;
    }

    /// <inheritdoc/>
    public uint Stop(int index)
    {
        ThrowIfDisposed();
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)_rings.Length, nameof(index));
        if (!_rings[index].Runs)
            return _rings[index].Base;
        Halt(index);
        if (RunsAsWhole)
        {
            for (int i = 0; i < _rings.Length; i++)
            {
                if (_rings[i].Runs)
                    Leave(i);
            }
            Release();
        }
        else
        {
            Leave(index);
        }
        return _rings[index].Base;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_isDisposed)
            return;
        if (!Device.IsClosed)
            StopAll();
        _isDisposed = true;
        Device.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>Refuses a call of the owner's after its <see cref="Dispose"/>. A device that <see cref="CloseByForce"/> has closed is no mistake of the
    /// owner's: its calls throw <see cref="VhostException"/>.</summary>
    private protected void ThrowIfDisposed() => ObjectDisposedException.ThrowIf(_isDisposed, this);

    /// <summary>Tells the kernel what the driver has accepted.</summary>
    private protected virtual void ApplyFeatures(ulong accepted)
    {
        ulong features = accepted;
        Call(VhostIoctls.SetFeatures, ref features);
    }

    /// <summary>Tells the kernel where <paramref name="memory"/> is.</summary>
    private protected virtual void ApplyMemory(GuestMemory memory)
    {
        byte[] table = new byte[Unsafe.SizeOf<VhostMemory>() + memory.Regions.Length * Unsafe.SizeOf<VhostMemoryRegion>()];
        MemoryMarshal.Write(table, new VhostMemory { Nregions = (uint)memory.Regions.Length });
        Span<VhostMemoryRegion> regions = MemoryMarshal.Cast<byte, VhostMemoryRegion>(table.AsSpan(Unsafe.SizeOf<VhostMemory>()));
        for (int i = 0; i < regions.Length; i++)
        {
            GuestRegion region = memory.Regions[i];
            regions[i] = new VhostMemoryRegion
            {
                GuestPhysAddr = region.Start.Value,
                MemorySize = region.Size,
                UserspaceAddr = (ulong)region.HostAddress,
            };
        }
        Call(VhostIoctls.SetMemTable, ref table[0]);
    }

    /// <summary>Comes before the first ring is configured.</summary>
    /// <param name="features">What the driver has accepted; <see cref="ApplyFeatures"/> has succeeded with it.</param>
    /// <param name="memory">The memory that was set last.</param>
    private protected virtual void Prepare(ulong features, GuestMemory memory)
    {
    }

    /// <summary>Lets rings run that are configured. What it started when it throws is stopped by <see cref="Halt"/>.</summary>
    private protected abstract void Run(IReadOnlyList<VringConfig> rings);

    /// <summary>Stops ring <paramref name="index"/>, or all if they run as a whole. When it returns the kernel has left them, or
    /// <see cref="CloseByForce"/> was called. No exceptions.</summary>
    private protected abstract void Halt(int index);

    /// <summary>Comes after the last ring was stopped, if they run as a whole, or when a start failed. No exceptions.</summary>
    private protected virtual void Release()
    {
    }

    /// <summary>The addresses of a ring as the kernel wants them: those of this process.</summary>
    /// <exception cref="GuestMemoryException">The ring is not in memory.</exception>
    private protected virtual VhostVringAddr Locate(in VringConfig ring, GuestMemory memory)
    {
        // Of a split ring, with the event index at the end (VIRTIO 1.2 §2.7).
        return new VhostVringAddr
        {
            Index = (uint)ring.Index,
            DescUserAddr = (ulong)memory.HostAddress(ring.DescriptorArea, 16 * ring.Size),
            AvailUserAddr = (ulong)memory.HostAddress(ring.DriverArea, 6 + 2 * ring.Size),
            UsedUserAddr = (ulong)memory.HostAddress(ring.DeviceArea, 6 + 8 * ring.Size),
        };
    }

    /// <summary>Calls with the address of <paramref name="argument"/>.</summary>
    /// <exception cref="VhostException">It failed; the message ends with <paramref name="advice"/>.</exception>
    private protected void Call<T>(in IoctlRequest request, ref T argument, string? advice = null)
        where T : unmanaged
    {
        int result = TryCall(request, ref argument);
        if (result < 0)
            throw Failure(request, -result, advice);
    }

    /// <summary>Calls without an argument.</summary>
    /// <exception cref="VhostException">It failed.</exception>
    private protected void Call(in IoctlRequest request, string? advice = null)
    {
        int result = Ioctl.TryCall(Device, request);
        if (result < 0)
            throw Failure(request, -result, advice);
    }

    /// <summary>Calls with the address of <paramref name="argument"/>, without an exception.</summary>
    /// <returns>0 or more; less: the negated error number.</returns>
    private protected unsafe int TryCall<T>(in IoctlRequest request, ref T argument)
        where T : unmanaged
    {
        if (Device.IsClosed)
            return -Errnos.Ebadf;
        // SAFETY: pinned for the call; the request's size field was made from the same T.
        fixed (T* pointer = &argument)
            return Ioctl.TryCall(Device, request, (nuint)pointer);
    }

    /// <summary>Has a device that does not stop closed, which waits until it has left guest memory. It cannot be used any more.</summary>
    private protected void CloseByForce()
    {
        if (_startFailed)
            return;   // the rings never ran, so it does not matter that the kernel refuses to stop them
        Warn($"{Name}: cannot be stopped, and is closed: end this program and start it again to have the device back");
        Device.Dispose();
    }

    /// <summary>As <see cref="TryCall{T}"/>; a failure, which is not expected where this is used, is warned of.</summary>
    private protected bool CallOrWarn<T>(in IoctlRequest request, ref T argument)
        where T : unmanaged
    {
        int result = TryCall(request, ref argument);
        if (result < 0 && !Device.IsClosed)
            Warn(Failure(request, -result, null).Message);
        return result >= 0;
    }

    /// <summary>Warns of what cannot be helped.</summary>
    private protected static void Warn(string message) => s_log.Warn("{Error}", message);

    /// <summary>Tells what was done instead of what was asked for.</summary>
    private protected static void Inform(string message) => s_log.Info("{Message}", message);

    /// <summary>The error of a failed <paramref name="request"/>.</summary>
    private protected VhostException Failure(in IoctlRequest request, int errno, string? advice)
    {
        var inner = new ErrnoException($"ioctl({request.Name})", errno, advice);
        return new VhostException($"{Name}: {inner.Message}", inner);
    }

    /// <summary>Gives ring <paramref name="first"/> and those after it a kernel thread each, where the kernel can (Linux 6.5); elsewhere
    /// one thread works all rings.</summary>
    private protected void SpreadOverWorkers(int first)
    {
        for (int i = first; i < _rings.Length; i++)
        {
            VhostWorkerState worker = default;
            if (TryCall(VhostIoctls.NewWorker, ref worker) < 0)
                return;
            var attached = new VhostVringWorker { Index = (uint)i, WorkerId = worker.WorkerId };
            if (TryCall(VhostIoctls.AttachVringWorker, ref attached) < 0)
            {
                TryCall(VhostIoctls.FreeWorker, ref worker);
                return;
            }
        }
    }

    private static FileDescriptor Open(string path, string module)
    {
        try
        {
            return FileDescriptor.Open(path, OpenMode.ReadWrite);
        }
        catch (ErrnoException e)
        {
            string advice = e.Errno switch
            {
                Errnos.Enoent when !path.StartsWith("/dev/", StringComparison.Ordinal) => "nothing is there: devices are in /dev",
                Errnos.Enoent or Errnos.Enodev or Errnos.Enxio => $"load the kernel's module: modprobe {module}",
                Errnos.Eacces or Errnos.Eperm => $"it is not yours to open: become a member of its group (often kvm), or chown it; see ls -l {path}",
                Errnos.Ebusy => "another process has it: end that one first",
                _ => "is it the right device?",
            };
            throw new VhostException($"{e.Message}: {advice}", e);
        }
    }

    private void Configure(in VringConfig ring)
    {
        uint index = (uint)ring.Index;
        var size = new VhostVringState { Index = index, Num = (uint)ring.Size };
        Call(VhostIoctls.SetVringNum, ref size);
        var start = new VhostVringState { Index = index, Num = ring.Base };
        Call(VhostIoctls.SetVringBase, ref start);
        VhostVringAddr addresses = Locate(in ring, Memory!);
        Call(VhostIoctls.SetVringAddr, ref addresses);
        Bind(VhostIoctls.SetVringErr, index, ring.Error);
        Bind(VhostIoctls.SetVringCall, index, ring.Call);
        Bind(VhostIoctls.SetVringKick, index, ring.Kick);
    }

    private void Bind(in IoctlRequest request, uint index, EventFd? fd)
    {
        var file = new VhostVringFile { Index = index, Fd = VhostVringFile.Unbind };
        if (fd is null)
        {
            Call(request, ref file);
            return;
        }
        using HeldDescriptor held = fd.Hold();
        file.Fd = held.Number;
        Call(request, ref file);
    }

    // The ring has been stopped: remembers where, and lets go of its descriptors, so that its driver's kicks wake nobody.
    private void Leave(int index)
    {
        var state = new VhostVringState { Index = (uint)index };
        uint next = CallOrWarn(VhostIoctls.GetVringBase, ref state) ? state.Num : _rings[index].Base;
        _rings[index] = new Ring(Runs: false, next);
        Unbind(index);
    }

    private void Unbind(int index)
    {
        var nothing = new VhostVringFile { Index = (uint)index, Fd = VhostVringFile.Unbind };
        CallOrWarn(VhostIoctls.SetVringKick, ref nothing);
        CallOrWarn(VhostIoctls.SetVringCall, ref nothing);
        CallOrWarn(VhostIoctls.SetVringErr, ref nothing);
    }

    private readonly record struct Ring(bool Runs, uint Base);
}
