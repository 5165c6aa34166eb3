using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Devices.Backends;
using Vmm.Devices.Backends.Block;
using Vmm.Devices.Backends.Console;
using Vmm.Devices.Backends.FileSystem;
using Vmm.Devices.Backends.Net;
using Vmm.Devices.Backends.Rng;
using Vmm.Devices.Virtio.Net;
using Vmm.Sandbox;
using Vmm.Tests.Integration;
using Vmm.Vhost.Kernel;
using Vmm.Vhost.Native.Confinement;
using Vmm.Vhost.User.Frontend;

namespace Vmm.Tests.Devices.Backends;

/// <summary>The tables of docs/security.md, which say of each system call why it is no way out, and the lists that the filters are made of.</summary>
public partial class ConfinementTableTests
{
    private static readonly (string Who, IReadOnlyList<SystemCallRule> Rules)[] s_backends =
    [
        ("all", ProcessSystemCalls.Common),
        ("all but net on UDP", Confinement.Sending),
        ("vsock that connects, and `--client`", Confinement.Connecting),
        ("blk and fs on a machine with one processor", KickGathering.SystemCalls),
        ("rng", RngBackend.SystemCalls),
        ("blk", BlockBackend.SystemCalls),
        ("net on a tap", NetBackend.TapCalls),
        ("console on a terminal", ConsoleBackend.TerminalCalls),
        ("fs", FileSystemBackend.SystemCalls),
        ("fs that is not read-only", FileSystemBackend.ChangingCalls),
        ("fs that is not read-only, `privileged=off`", FileSystemBackend.NodeCalls),
        ("fs that is not read-only, `privileged=on`", FileSystemBackend.DeviceNodeCalls),
        ("fs that is root and not read-only", FileSystemBackend.IdentityCalls),
    ];

    private static readonly (string Who, IReadOnlyList<SystemCallRule> Rules)[] s_machine =
    [
        ("vCPUs", MachineSystemCalls.Running),
        ("vCPUs", MachineSystemCalls.Vcpu),
        ("vCPUs", ProcessSystemCalls.Runtime),
        ("vCPUs: kernel back-ends", VhostKernelBackend.CommonSystemCalls),
        ("vCPUs: `--net tap=`", VhostNet.OwnSystemCalls),
        ("vCPUs: `--net tap=`", NetDevice.TapCalls),
        ("vCPUs: `--vsock`", VhostVsock.OwnSystemCalls),
        ("vCPUs: `--scsi`", VhostScsi.OwnSystemCalls),
        ("vCPUs: `--vdpa`", VhostVdpa.OwnSystemCalls),
        ("vCPUs: vhost-user", VhostUserFrontend.OwnersCalls),
        ("others", MachineSystemCalls.Machine),
        ("others: terminal", MachineSystemCalls.OwnTerminal),
        ("others: `--serial tty`", MachineSystemCalls.Job),
        ("others: `vmm exec`", MachineSystemCalls.Streams),
        ("others: `--net tap=`", NetDevice.LinkCalls),
        ("others: vhost-user", VhostUserFrontend.ConnectingCalls),
    ];

    [Test]
    public void Table_OfBackends_HasTheSameCalls() =>
        Assert.That(Documented("\n### What a confined back-end can call\n"), Is.EquivalentTo(InCode(s_backends)));

    [Test]
    public void Table_OfTheMachine_HasTheSameCalls() =>
        Assert.That(Documented("\n### What the VMM can call\n"), Is.EquivalentTo(InCode(s_machine)));

    [Test]
    public void Rules_WithArgumentsInWords_HaveConditions()
    {
        foreach (SystemCallRule rule in s_backends.Concat(s_machine).SelectMany(list => list.Rules))
            Assert.That(rule.Conditions.Count > 0, Is.EqualTo(rule.Arguments.Length > 0), $"{rule}");
    }

    private static IEnumerable<string> InCode((string Who, IReadOnlyList<SystemCallRule> Rules)[] lists) =>
        lists.SelectMany(list => list.Rules.Select(rule => $"{list.Who}: {Name(rule.Call)} {rule.Arguments}".TrimEnd()));

    private static IEnumerable<string> Documented(string heading)
    {
        string text = File.ReadAllText(RepositoryRoot.Combine("docs", "security.md"));
        text = text[text.IndexOf(heading, StringComparison.Ordinal)..];
        text = text[text.IndexOf("\n| call | arguments |", StringComparison.Ordinal)..];
        foreach (string line in text.Split('\n').Skip(3).TakeWhile(line => line.StartsWith('|')))
        {
            string[] cells = [.. line.Split('|').Select(cell => cell.Trim())];
            Assert.That(cells, Has.Length.EqualTo(6), line);
            Assert.That(cells[4], Is.Not.Empty, line);
            foreach (string call in cells[1].Split(", "))
                yield return $"{cells[3]}: {call.Trim('`')} {cells[2]}".TrimEnd();
        }
    }

    private static string Name(SystemCallNumber call) => Upper().Replace($"{call}", "_$0").ToLowerInvariant().TrimStart('_');

    [GeneratedRegex("[A-Z]")]
    private static partial Regex Upper();
}
