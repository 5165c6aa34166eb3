using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Numerics;
using NUnit.Framework;
using Vmm.Boot;
using Vmm.Devices.Virtio;
using Vmm.Machine;
using Vmm.Serial;
using Vmm.Tests.Fakes;
using Vmm.Vhost;
using Vmm.Vhost.Memory;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration;

/// <summary>A guest that drives a virtio-mmio device: registers, ioeventfd and irqfd as KVM has them. The machine is in this process,
/// the device a fake whose back-end is a thread of the test.</summary>
public class VirtioMmioTests : KvmTest
{
    [Test]
    public void Device_SetUpAndKicked_Interrupts()
    {
        var device = new FakeVirtioDevice();
        string output;
        using (var backend = new Echo(device))
        {
            output = Boot(device, "");
            Assert.That(backend.Kicks, Is.EqualTo(3));
        }

        Assert.That(output, Is.EqualTo("""
            magic 0x74726976, version 0x2, device 0x4
            features 0x5 0x1, status 0xb
            queue of 0x40, status 0xf
            interrupt 0x1
            interrupt 0x1
            interrupt 0x1
            configuration 0x807060504030201

            """));
        Assert.That(device.IsDisposed);
    }

    [Test]
    public void RandomProgram_InAGuest_ReadsWhatTheTransportSays()
    {
        string output = Boot(new FakeVirtioDevice(), "random");

        (ulong read, uint status) = RunRandomProgram();
        Assert.That(output, Is.EqualTo($"read 0x{read:x}, status 0x{status:x}\n"));
    }

    [Test]
    public void Reset_DeviceThatMayStillWrite_GivesTheGuestOtherMemory()
    {
        var memories = new ConcurrentQueue<GuestMemory>();
        var device = new FakeVirtioDevice();
        string console = Path.Combine(Scratch, "console");
        using (var machine = new VirtualMachine(new MachineConfig
        {
            Kernel = new KernelOptions { KernelPath = Payloads.Path("resetloop") },
            MemorySize = 64 << 20,
            Serial = new SerialConfig(SerialKind.File, console),
            Devices = [new FakeOptions(device)],
        }))
        {
            // Each memory that the guest has had may be written to.
            device.Writes = memory =>
            {
                if (!memories.Contains(memory))
                    memories.Enqueue(memory);
                if (memories.Count == 3)
                    machine.Stop(new MachineEnd(MachineEndKind.Quit));
                return true;
            };
            using var timer = new Timer(_ => machine.Stop(new MachineEnd(MachineEndKind.Quit)), null, VmmProcess.Deadline, Timeout.InfiniteTimeSpan);
            Assert.That(machine.Run().Kind, Is.EqualTo(MachineEndKind.Quit));
        }
        Assert.That(memories, Has.Count.EqualTo(3));
        Assert.That(File.ReadAllText(console), Does.StartWith("start\nstart\n"));
    }

    private string Boot(FakeVirtioDevice device, string commandLine)
    {
        string console = Path.Combine(Scratch, "console");
        using (var machine = new VirtualMachine(new MachineConfig
        {
            Kernel = new KernelOptions { KernelPath = Payloads.Path("virtio"), CommandLine = commandLine },
            MemorySize = 64 << 20,
            Serial = new SerialConfig(SerialKind.File, console),
            Devices = [new FakeOptions(device)],
        }))
        {
            using var timer = new Timer(_ => machine.Stop(new MachineEnd(MachineEndKind.Quit)), null, VmmProcess.Deadline, Timeout.InfiniteTimeSpan);
            Assert.That(machine.Run().Kind, Is.EqualTo(MachineEndKind.PowerOff));
        }
        return File.ReadAllText(console);
    }

    // The program of firmware/payloads/virtio.S, step by step.
    private static (ulong Read, uint Status) RunRandomProgram()
    {
        using GuestMemory memory = GuestMemory.Create([(new(0), 64 << 20)]);
        using var transport = new VirtioMmioTransport(new FakeVirtioDevice(), memory);
        ReadOnlySpan<ushort> registers =
            [0x70, 0x70, 0x70, 0x70, 0x14, 0x24, 0x20, 0x30, 0x38, 0x44, 0x50, 0x64, 0x80, 0x84, 0x90, 0xA0, 0xAC, 0xC0];
        ulong random = 1, read = 0;
        Span<byte> data = stackalloc byte[8];
        for (int i = 0; i < 20000; i++)
        {
            ulong choice = Next();
            ulong offset, value;
            int width;
            if ((choice & 7) == 0)
            {
                offset = (choice >> 3) % 288;
                width = 1 << (int)(Next() & 3);
                value = Next();
            }
            else
            {
                offset = registers[(int)((choice >> 3) % (ulong)registers.Length)];
                width = 4;
                value = Next();
                value = (value & 1) != 0 ? value >> 1 : (value >> 1) & 15;
            }
            BinaryPrimitives.WriteUInt64LittleEndian(data, value);
            transport.Write(offset, data[..width]);

            transport.Read(Next() % 288, data);
            read = BitOperations.RotateLeft(read ^ BinaryPrimitives.ReadUInt64LittleEndian(data), 7);
        }
        return (read, new VirtioDriver(transport).Status);

        ulong Next()
        {
            random = random * 6364136223846793005 + 1442695040888963407;
            return random >> 16;
        }
    }

    private sealed record FakeOptions(FakeVirtioDevice Device) : VirtioDeviceOptions
    {
        public override VirtioDevice Open(EventLoop events, CancellationToken cancellation = default) => Device;
    }

    /// <summary>A back-end that answers each kick of queue 0 with an interrupt.</summary>
    private sealed class Echo : IDisposable
    {
        private readonly FakeVirtioDevice _device;
        private readonly Thread _thread;
        private volatile bool _stop;

        public Echo(FakeVirtioDevice device)
        {
            _device = device;
            _thread = new Thread(Run);
            _thread.Start();
        }

        public int Kicks { get; private set; }

        public void Dispose()
        {
            _stop = true;
            _thread.Join();
        }

        private void Run()
        {
            while (!_stop)
            {
                lock (_device.Sync)
                {
                    // The eventfds are gone once the device is stopped.
                    if (_device.Queues is [VringConfig ring] && ring.Kick.Drain() is > 0 and ulong kicks)
                    {
                        Kicks += (int)kicks;
                        ring.Call.Signal();
                    }
                }
                Thread.Sleep(1);
            }
        }
    }
}
